package town_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/parts"
	"passerelle/demo/parts/partstest"
	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// newTown is a town without host pages: two real Synapses, two Passerelles.
func newTown(t testing.TB, change ...func(*town.Options)) (world *town.Town, binary string) {
	t.Helper()
	lksdk.SetLogger(logger.GetDiscardLogger())
	if testing.Short() {
		t.Skip("starts two homeservers")
	}
	build := town.Options{Python: partstest.Synapse(t), Binary: buildPasserelle(t)}
	store, err := parts.Open(t.Output(), false)
	require.NoError(t, err)
	for _, c := range change {
		c(&build)
	}
	world, err = town.Start(t.Context(), build)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			out := filepath.Join(store.Dir, "calls", t.Name())
			require.NoError(t, os.MkdirAll(out, 0o755))
			require.NoError(t, world.KeepLogs(out))
			t.Logf("what the servers said is in %s", out)
		}
		require.NoError(t, world.Stop())
	})
	return world, build.Binary
}

// binaries is where the program is built, once for all tests.
var binaries string

func TestMain(m *testing.M) {
	var err error
	if binaries, err = os.MkdirTemp("", "passerelle-built-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(binaries)
	os.Exit(code)
}

var built = sync.OnceValues(func() (binary string, err error) {
	store, err := parts.Open(io.Discard, false)
	if err != nil {
		return "", err
	}
	binary = filepath.Join(binaries, "passerelle")
	compile := exec.Command("go", "build", "-buildvcs=false", "-o", binary, ".")
	compile.Dir = store.Root
	if said, err := compile.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, said)
	}
	return binary, nil
})

// buildPasserelle builds the program from the checkout.
func buildPasserelle(t testing.TB) (binary string) {
	t.Helper()
	binary, err := built()
	require.NoError(t, err)
	return binary
}

// answer is what came back. Header is without what differs in any two.
type answer struct {
	Status int
	Body   string
	Header http.Header
}

// jwt is the token that was given; it fails the test when there is none.
func (a answer) jwt(t testing.TB) string {
	t.Helper()
	require.Equal(t, http.StatusOK, a.Status, a.Body)
	var got struct{ JWT string }
	require.NoError(t, json.Unmarshal([]byte(a.Body), &got))
	require.NotEmpty(t, got.JWT)
	return got.JWT
}

func post(t testing.TB, url, bearer string, body any) answer {
	t.Helper()
	return send(t, http.MethodPost, url, bearer, body)
}

// send is one request, with a body unless that is nil.
func send(t testing.TB, method, url, bearer string, body any) answer {
	t.Helper()
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		require.NoError(t, err)
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, content)
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	got, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	got.Header.Del("Date")
	return answer{got.StatusCode, strings.TrimSpace(string(text)), got.Header}
}

// way is one of the ways to a token of Intérieur's Passerelle.
type way struct {
	name string
	// remote: it is for users of other servers, or for them as well.
	local, remote bool
	// ready prepares to ask, so that the asking alone can be measured. What it
	// returns may ask often.
	ready func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) (ask func() answer)
}

func (v way) ask(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) answer {
	t.Helper()
	return v.ready(t, w, user, room)()
}

const (
	slot = "m.call#ROOM"

	clientNow = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token"
	clientV1  = "/_matrix/client/v1/rtc/livekit/get_token"
	leaveNow  = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave"
)

// ways are all routes by which tokens are given.
func ways() []way {
	return []way{
		{"legacy", true, true, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			body := map[string]any{"room": room, "openid_token": openID(t, user), "device_id": user.DeviceID}
			return func() answer { return post(t, w.Interieur.PublicURL+"/sfu/get", "", body) }
		}},
		{"standalone", true, true, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			return standalone(t, w.Interieur, user, room)
		}},
		{"proxied", true, false, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			body := map[string]any{"url": sfu(w.Interieur), "room_id": room, "slot_id": slot, "member_id": "m"}
			return func() answer {
				return post(t, w.Interieur.Homeserver.ClientURL+clientNow, user.AccessToken, body)
			}
		}},
		{"proxied v1", true, false, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			body := map[string]any{"url": sfu(w.Interieur), "room_id": room, "slot_id": slot,
				"member": map[string]any{"id": "m2", "claimed_device_id": user.DeviceID}}
			return func() answer {
				return post(t, w.Interieur.Homeserver.ClientURL+clientV1, user.AccessToken, body)
			}
		}},
		{"federated", false, true, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			return func() answer { return federated(t, w, user.UserID, room) }
		}},
		{"relayed", false, true, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			body := map[string]any{"server_name": w.Interieur.ServerName(), "url": sfu(w.Interieur),
				"room_id": room, "slot_id": slot, "member_id": "m"}
			return func() answer {
				return post(t, w.Finances.Homeserver.ClientURL+clientNow, user.AccessToken, body)
			}
		}},
	}
}

// standalone asks the Passerelle of either ministry.
func standalone(t testing.TB, at *town.Ministry, user *synapse.User, room id.RoomID) func() answer {
	t.Helper()
	body := map[string]any{"room_id": room, "slot_id": slot, "openid_token": openID(t, user),
		"member": map[string]any{"id": "m", "claimed_user_id": user.UserID, "claimed_device_id": user.DeviceID}}
	return func() answer { return post(t, at.PublicURL+"/get_token", "", body) }
}

// handovers are the routes by which a leave alone is handed over. The leave is
// nobody's: who is not in the room is refused before it is looked for.
func handovers() []way {
	const event, delay = "syd_nobodys", 60_000
	return []way{
		{"leave", true, false, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			body := map[string]any{"room_id": room, "slot_id": slot, "openid_token": openID(t, user), "delay_id": event, "delay_timeout": delay,
				"member": map[string]any{"id": "m", "claimed_user_id": user.UserID, "claimed_device_id": user.DeviceID}}
			return func() answer { return post(t, w.Interieur.PublicURL+"/delegate_delayed_leave", "", body) }
		}},
		{"proxied leave", true, false, func(t testing.TB, w *town.Town, user *synapse.User, room id.RoomID) func() answer {
			body := map[string]any{"url": sfu(w.Interieur), "room_id": room, "slot_id": slot, "member_id": "m", "delay_id": event}
			return func() answer {
				return post(t, w.Interieur.Homeserver.ClientURL+leaveNow, user.AccessToken, body)
			}
		}},
	}
}

// federated asks as Finances' homeserver does, with its signature.
func federated(t testing.TB, w *town.Town, user id.UserID, room id.RoomID) answer {
	t.Helper()
	got := post(t, w.Finances.Homeserver.ClientURL+"/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy", w.Finances.ASToken,
		map[string]any{"destination": w.Interieur.Homeserver.Name, "method": "POST",
			"path": "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token",
			"body": map[string]any{"user_id": user, "url": sfu(w.Interieur), "room_id": room, "slot_id": slot, "member_id": "m"}})
	require.Equal(t, http.StatusOK, got.Status, got.Body)
	var outer struct {
		Status  int
		Content json.RawMessage
	}
	require.NoError(t, json.Unmarshal([]byte(got.Body), &outer))
	return answer{outer.Status, string(outer.Content), got.Header}
}

func sfu(m *town.Ministry) string { return "ws" + strings.TrimPrefix(m.PublicURL, "http") }

func openID(t testing.TB, user *synapse.User) any {
	t.Helper()
	token, err := user.RequestOpenIDToken(t.Context())
	require.NoError(t, err)
	return token
}

// account makes an account on either side.
func account(t testing.TB, m *town.Ministry, localpart string) *synapse.User {
	t.Helper()
	user, err := m.Homeserver.Register(t.Context(), localpart, localpart)
	require.NoError(t, err)
	return user
}

// do is one request of the client-server API, which must succeed.
func do(t testing.TB, user *synapse.User, method string, body any, path ...any) {
	t.Helper()
	_, err := user.MakeRequest(t.Context(), method, user.BuildClientURL(append([]any{"v3"}, path...)...), body, nil)
	require.NoError(t, err, fmt.Sprint(path...))
}

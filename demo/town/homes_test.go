package town_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/dendrite"
	"passerelle/demo/parts/partstest"
	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

var update = flag.Bool("update", false, "write the golden files anew")

// checked compares what `passerelle check` says with a golden file, and whether
// it is content with the homeserver.
func checked(t *testing.T, binary, config, name string, content bool) (lines []string) {
	t.Helper()
	said, err := exec.CommandContext(t.Context(), binary, "check", "-config", config).Output()
	if content {
		require.NoError(t, err, "%s", said)
	} else {
		failed := &exec.ExitError{}
		require.ErrorAs(t, err, &failed)
		require.Equal(t, 1, failed.ExitCode())
	}
	golden := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, said, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(said))
	return strings.Split(strings.TrimSpace(string(said)), "\n")
}

// lone is a ministry whose homeserver the test starts, with its Passerelle's
// program and a certificate authority.
type lone struct {
	*town.Lone
	t         *testing.T
	binary    string
	authority *synapse.Authority
}

func newLone(t *testing.T, address string) *lone {
	t.Helper()
	dir := t.TempDir()
	l := &lone{t: t, binary: buildPasserelle(t)}
	var err error
	l.authority, err = synapse.NewAuthority(dir)
	require.NoError(t, err)
	l.Lone, err = town.NewLone(t.Context(), dir, address, l.binary, l.authority.File)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.StopPasserelle()) })
	return l
}

// with changes one key of the configuration; nil removes it.
func (l *lone) with(section, key string, value any) {
	l.t.Helper()
	require.NoError(l.t, l.Configure(func(of func(string) map[string]any) {
		if value == nil {
			delete(of(section), key)
		} else {
			of(section)[key] = value
		}
	}))
}

// start starts its Passerelle and returns once it has said in its log what it
// misses at the homeserver: the lines of `passerelle check`.
func (l *lone) start(lines []string) {
	l.t.Helper()
	require.NoError(l.t, l.StartPasserelle(l.t.Context()), "what the homeserver lacks keeps nobody from starting")
	require.Eventually(l.t, func() bool {
		said, err := l.PasserelleLog()
		require.NoError(l.t, err)
		logged := map[string]bool{}
		for text := range strings.Lines(said) {
			var line struct{ Message, Costs, Mend string }
			if json.Unmarshal([]byte(text), &line) == nil {
				_, wrong, _ := strings.Cut(line.Message, ": ")
				logged[wrong+": "+line.Costs+" ("+line.Mend+")"] = true
			}
		}
		for _, line := range lines {
			if !logged[line] {
				return false
			}
		}
		return true
	}, time.Minute, 100*time.Millisecond)
}

// token asks for one by a route for everybody.
func (l *lone) token(route string, user *synapse.User, room id.RoomID) answer {
	l.t.Helper()
	body := map[string]any{"room": room, "openid_token": openID(l.t, user), "device_id": user.DeviceID}
	if route == "/get_token" {
		body = map[string]any{"room_id": room, "slot_id": slot, "openid_token": openID(l.t, user),
			"member": map[string]any{"id": "m", "claimed_user_id": user.UserID, "claimed_device_id": user.DeviceID}}
	}
	return post(l.t, l.PublicURL+route, "", body)
}

// delegatesNothing: clients take anything but 404 for a yes, and would then not
// look after their leaves.
func (l *lone) delegatesNothing(clientURL string) {
	l.t.Helper()
	require.Eventually(l.t, func() bool {
		return post(l.t, l.PublicURL+"/delegate_delayed_leave", "", nil).Status == http.StatusNotFound
	}, time.Minute, 50*time.Millisecond, "once the homeserver was asked")
	for _, path := range []string{"/_matrix/client/unstable/io.element.msc4195", "/_matrix/client/v1"} {
		require.Equal(l.t, http.StatusNotFound, post(l.t, clientURL+path+"/rtc/livekit/delegate_delayed_leave", "", nil).Status)
	}
}

// TestSynapseWithoutSwitches: a newest Synapse as it is by itself. Nobody can be
// asked who is in a room there.
func TestSynapseWithoutSwitches(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a homeserver")
	}
	python := partstest.Synapse(t)
	l := newLone(t, "127.0.0.33")
	place := l.Place()
	home, err := synapse.Start(t.Context(), synapse.Options{
		Python: python, Dir: place.Dir, Address: place.Address, ClientPort: place.ClientPort, FederationPort: place.FederationPort,
		Authority: l.authority, Bare: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, home.Stop()) })
	checked(t, l.binary, l.Config, "bare", false)
	l.with("focus", "membership", "unverified")
	l.with("homeserver", "listen", nil)
	checked(t, l.binary, l.Config, "bare.unverified", false)
	l.with("homeserver", "as_token_file", nil)
	l.with("announce", "transports", true)
	l.start(checked(t, l.binary, l.Config, "bare.tokenless", false))

	user, err := home.Register(t.Context(), "alice", "Alice")
	require.NoError(t, err)
	room, err := user.CreateCallRoom(t.Context(), "Seule", false)
	require.NoError(t, err)
	l.token("/sfu/get", user, room).jwt(t)
	l.token("/get_token", user, room).jwt(t)
	proxied := post(t, home.ClientURL+"/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token", user.AccessToken,
		map[string]any{"url": sfu(l.Ministry), "room_id": room, "slot_id": slot, "member_id": "m"})
	require.Equal(t, http.StatusNotFound, proxied.Status, "clients take it for: ask the service itself")
	l.delegatesNothing(home.ClientURL)
	got, err := http.Get(l.PublicURL + "/_matrix/client/v1/rtc/transports")
	require.NoError(t, err)
	require.NoError(t, got.Body.Close())
	require.Equal(t, http.StatusOK, got.StatusCode)
}

// TestDendrite: a homeserver without delayed events and everything newer. Who is
// in a room is asked where a user of our registration is in it.
func TestDendrite(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a homeserver")
	}
	program := partstest.Dendrite(t)
	l := newLone(t, "127.0.0.34")
	place := l.Place()
	home, err := dendrite.Start(t.Context(), dendrite.Options{
		Binary: program, Dir: place.Dir, Address: place.Address, ClientPort: place.ClientPort, FederationPort: place.FederationPort,
		Authority: l.authority, AppServices: []string{place.Registration},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, home.Stop()) })
	lines := checked(t, l.binary, l.Config, "dendrite", false)
	l.start(lines)

	user, err := home.Register(t.Context(), "alice")
	require.NoError(t, err)
	stranger, err := home.Register(t.Context(), "bob")
	require.NoError(t, err)
	room, err := user.CreateCallRoom(t.Context(), "Seule", false)
	require.NoError(t, err)
	l.delegatesNothing(home.ClientURL)

	unknown := l.token("/sfu/get", user, room)
	require.Equal(t, http.StatusForbidden, unknown.Status, "nobody of ours is in the room, so nobody can say: %s", unknown.Body)
	ours := id.NewUserID("_passerelle_focus", home.Name)
	_, err = user.InviteUser(t.Context(), room, &mautrix.ReqInviteUser{UserID: ours})
	require.NoError(t, err)
	joined := post(t, home.ClientURL+"/_matrix/client/v3/join/"+room.String(), l.ASToken, map[string]any{})
	require.Equal(t, http.StatusOK, joined.Status, joined.Body)
	for _, route := range []string{"/sfu/get", "/get_token"} {
		l.token(route, user, room).jwt(t)
		refused := l.token(route, stranger, room)
		require.Equal(t, http.StatusForbidden, refused.Status, "not in the room: %s", refused.Body)
		require.Equal(t, unknown.Body, refused.Body, "which rooms ours is in, nobody learns")
	}

	require.NoError(t, l.StopPasserelle())
	l.with("focus", "membership", "unverified")
	l.start(checked(t, l.binary, l.Config, "dendrite.unverified", false))
	for _, route := range []string{"/sfu/get", "/get_token"} {
		l.token(route, user, room).jwt(t)
		l.token(route, stranger, room).jwt(t)
	}
	l.delegatesNothing(home.ClientURL)
}

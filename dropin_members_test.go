package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDropInUnverifiedMembership: nobody can be asked, so the token is given,
// and it is on record that nobody was.
func TestDropInUnverifiedMembership(t *testing.T) {
	d := newDropIn(t)
	private := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0])
	d.set("PASSERELLE_SERVER_PRIVATE_LISTEN=" + private)
	d.start()
	require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana")).status)
	require.Empty(t, d.home.askers())
	require.Regexp(t, `passerelle_focus_membership_total\{answer="unverified"\} 1`, metricsOf(t, private))
}

func metricsOf(t *testing.T, private string) string {
	t.Helper()
	answer, err := http.Get("http://" + private + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(text)
}

// askers are the tokens with which membership was asked.
func (d *delayedEvents) askers() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.asked...)
}

const (
	asToken = "as-7Yq2Lw9Zr4Xn1Vb6Mc3Hs8Jd5Fg0Pa"
	hsToken = "hs-3Kt8Ye1Uw6Ri0Ob5Nc9Ls2Gd7Ma4Qz"
)

func newAppservice(t *testing.T) *dropIn {
	t.Helper()
	d := newDropIn(t)
	d.set("LIVEKIT_AS_TOKEN="+asToken, "LIVEKIT_HS_TOKEN="+hsToken, "LIVEKIT_HS_SERVER_NAME="+d.home.Name())
	return d
}

// TestDropInMembership is row 31: with a registration every route is for
// members of the room alone.
func TestDropInMembership(t *testing.T) {
	d := newAppservice(t).start()
	d.home.joined("!room:example.org", d.home.User("ana"))
	for _, route := range dropInRoutes {
		body := func(user string) object {
			switch route {
			case "/sfu/get":
				return d.legacy(user)
			case "/get_token":
				return d.standalone(user)
			}
			return d.standalone(user, delay("leave-"+user, time.Minute))
		}
		require.Equal(t, http.StatusOK, d.post(route, body("ana")).status, route)
		refused, unknown := d.post(route, body("bo")), d.post(route, merged(body("ana"), []object{{"room": "!other:example.org", "room_id": "!other:example.org"}}))
		require.Equal(t, http.StatusForbidden, refused.status)
		require.Equal(t, "M_FORBIDDEN", refused.body["errcode"])
		require.Equal(t, refused.raw, unknown.raw, "as for a room that there is not")
	}
	for _, token := range d.home.askers() {
		require.Equal(t, "Bearer "+asToken, token)
	}
	require.NotEmpty(t, d.home.askers())
	require.Empty(t, regexp.MustCompile(`(?i)membership`).FindAllString(warnings(d), -1))
	require.NotContains(t, d.said.String(), asToken)
}

// TestDropInRegistrationFile: the tokens of the file count.
func TestDropInRegistrationFile(t *testing.T) {
	d := newAppservice(t)
	file := filepath.Join(openFolder(t), "registration.yaml")
	require.NoError(t, os.WriteFile(file, []byte("id: livekit\nurl: null\nas_token: "+asToken+"\nhs_token: "+hsToken+"\n"), 0o644))
	d.set("LIVEKIT_AS_TOKEN=other", "LIVEKIT_HS_TOKEN=another", "LIVEKIT_AS_REGISTRATION_FILE="+file)
	d.start()
	d.home.joined("!room:example.org", d.home.User("ana"))
	require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana")).status)
	require.Equal(t, []string{"Bearer " + asToken}, d.home.askers())
}

// handOver sends what a homeserver hands over, with its token.
func (d *dropIn) handOver(path, token, user string, body object) reply {
	d.t.Helper()
	encoded, err := json.Marshal(body)
	require.NoError(d.t, err)
	request, err := http.NewRequest(http.MethodPost, "http://"+d.address+path, bytes.NewReader(encoded))
	require.NoError(d.t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	if user != "-" {
		request.Header.Set("X-Matrix-User-Identifier", user)
	}
	return d.do(request)
}

// TestDropInProxied is rows 55 to 58 but for the status of the first two: the homeserver's own requests, on the
// same listener.
func TestDropInProxied(t *testing.T) {
	const path = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token"
	d := newAppservice(t).start()
	d.home.joined("!room:example.org", d.home.User("ana"))
	body := object{"url": d.env["LIVEKIT_URL"], "room_id": "!room:example.org", "slot_id": "m.call#ROOM", "member_id": "M"}
	ask := func(token, user string, body object) reply { return d.handOver(path, token, user, body) }
	good := ask(hsToken, d.home.User("ana"), body)
	require.Equal(t, http.StatusOK, good.status, good.raw)
	require.Equal(t, hashed(d.home.User("ana"), "M"), d.claims(good.body["jwt"].(string))["sub"])
	require.Equal(t, http.StatusForbidden, ask(hsToken, d.home.User("bo"), body).status)
	// Not 401: through a homeserver that would end the client's own session.
	for _, token := range []string{"", "wrong", asToken} {
		refused := ask(token, d.home.User("ana"), body)
		require.Equal(t, http.StatusForbidden, refused.status)
		require.Equal(t, "M_FORBIDDEN", refused.body["errcode"])
	}
	require.Equal(t, http.StatusForbidden, ask(hsToken, "", body).status)
	other := ask(hsToken, d.home.User("ana"), merged(object{"url": "wss://other.example"}, []object{{"room_id": "!room:example.org", "slot_id": "m.call#ROOM", "member_id": "M"}}))
	require.Equal(t, "M_INVALID_PARAM", other.body["errcode"])
}

// TestDropInWithADatabase: with one configured, leaves are rows in it, and
// outlive the process.
func TestDropInWithADatabase(t *testing.T) {
	d := newDropIn(t)
	folder := openFolder(t)
	require.NoError(t, syscall.Chmod(folder, 0o777))
	d.set("PASSERELLE_DATABASE_PATH=" + filepath.Join(folder, "passerelle.db"))
	d.start()
	d.delegate("ana", "leave", time.Minute)
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 1, 2*time.Second)
	d.kill()
	d.start()
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("leave", "send", 1, 5*time.Second)
}

// TestDropInEachTokenMakesItsRoom: also those that are asked for at one time.
func TestDropInEachTokenMakesItsRoom(t *testing.T) {
	d := newDropIn(t).start()
	const n = 20
	var bodies []object
	for i := range n {
		bodies = append(bodies, d.legacy(fmt.Sprint("user", i)))
	}
	var asking sync.WaitGroup
	var granted sync.Map
	for i, body := range bodies {
		asking.Go(func() { granted.Store(i, d.post("/sfu/get", body).status) })
	}
	asking.Wait()
	for i := range n {
		status, _ := granted.Load(i)
		require.Equal(t, http.StatusOK, status)
	}
	require.Len(t, d.sfu.created(), n)
	require.Equal(t, n, d.home.Requests())
}

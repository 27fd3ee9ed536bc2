package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDropInTellsNoSecrets: whatever goes wrong, at the most talkative level
// the log holds no secret, and a redirect takes none elsewhere.
func TestDropInTellsNoSecrets(t *testing.T) {
	var trapped atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { trapped.Add(1) }))
	t.Cleanup(trap.Close)
	stored := newFakeRedis(t)
	d := newAppservice(t)
	d.set("LIVEKIT_LOG_LEVEL=trace", "LIVEKIT_REDIS_URL="+stored.url())
	d.home.joined("!room:example.org", d.home.User("ana"))
	d.home.answers(func(c delayedCall, w http.ResponseWriter) bool {
		switch len(d.home.seen(c.id, c.action)) {
		case 1:
			w.Header().Set("Location", trap.URL+c.escaped)
			w.WriteHeader(http.StatusTemporaryRedirect)
		case 2:
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprint(w, strings.Repeat("x", 1<<20))
		case 3:
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	})
	d.start()
	const leave = "delay-secret"
	body := d.standalone("ana", delay(leave, 20*time.Second))
	openID := body["openid_token"].(object)["access_token"].(string)
	answer := d.post("/get_token", body)
	require.Equal(t, http.StatusOK, answer.status, answer.raw)
	d.event("participant_joined", "ana", "")
	d.called(leave, "restart", 4, 15*time.Second)
	stored.mu.Lock()
	stored.broken = true
	stored.mu.Unlock()
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called(leave, "send", 4, 15*time.Second)
	for _, wrong := range []object{
		{"openid_token": object{"access_token": "made-up-secret", "matrix_server_name": d.home.Name()}},
		{"openid_token": object{"access_token": "made-up-secret", "matrix_server_name": "127.0.0.1:1"}},
		{"openid_token": object{"access_token": "made-up-secret", "matrix_server_name": "no such name"}},
		{"delay_id": 7, "delay_timeout": "made-up-secret"},
	} {
		require.GreaterOrEqual(t, d.post("/get_token", merged(d.standalone("ana"), []object{wrong})).status, 400)
	}
	require.Zero(t, trapped.Load())
	said := d.said.String()
	require.Contains(t, said, "not verified", "the log talks")
	for _, secret := range []string{
		leave, openID, "made-up-secret", answer.body["jwt"].(string), asToken, hsToken, dropInSecret,
	} {
		require.NotContains(t, said, secret)
	}
}

// TestDropInRefusedConnectionsLeaveNothing: thousands who come, say half a
// word and go cost nothing for long.
func TestDropInRefusedConnectionsLeaveNothing(t *testing.T) {
	d := newDropIn(t)
	private := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0])
	d.set("PASSERELLE_SERVER_PRIVATE_LISTEN=" + private)
	d.start()
	goroutines := func() (n int) {
		for line := range strings.Lines(metricsOf(t, private)) {
			if _, err := fmt.Sscanf(line, "go_goroutines %d", &n); err == nil {
				return n
			}
		}
		return 0
	}
	before := goroutines()
	require.Positive(t, before)
	for i := range 1000 {
		conn, err := net.Dial("tcp", d.address)
		require.NoError(t, err)
		_, err = fmt.Fprint(conn, []string{
			"GET /rtc?access_token=x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
			"POST /sfu/get HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
			"POST /get_token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
			"GET / HTTP/1.1\r\nHo",
		}[i%4])
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
	require.Eventually(t, func() bool { return goroutines() < before+20 }, 10*time.Second, 100*time.Millisecond)
	require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana")).status)
}

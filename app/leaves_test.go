package app_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

// report sends a webhook as the SFU does.
func (p *program) report(t *testing.T, number, event string, who matrixrtc.Identity, reason string) {
	t.Helper()
	room := matrixrtc.SlotKey{RoomID: "!r:hs", SlotID: matrixrtc.RoomCallSlot}.SFURoom()
	body := fmt.Sprintf(`{"event":%q,"id":%q,"room":{"name":%q},"participant":{"sid":"PA_1","identity":%q,"disconnectReason":%q}}`,
		event, number, room, who, reason)
	sum := sha256.Sum256([]byte(body))
	token, err := auth.NewAccessToken(sfuKey, sfuSecret).SetValidFor(time.Minute).
		SetSha256(base64.StdEncoding.EncodeToString(sum[:])).ToJWT()
	require.NoError(t, err)
	answer, text := do(t, http.MethodPost, p.private+"/sfu_webhook", body,
		http.Header{"Authorization": {token}, "Content-Type": {"application/webhook+json"}})
	require.Equal(t, http.StatusOK, answer.StatusCode, text)
}

// A leave goes its whole way: handed over for a participant of the other route,
// put off when it connects, sent when it is gone.
func TestALeaveGoesItsWay(t *testing.T) {
	p := startProgram(t)
	calls := make(chan string, 10)
	p.home.Handle("GET /.well-known/matrix/client", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"m.homeserver":{"base_url":"https://%s/api"}}`, p.home.Name())
	})
	p.home.Handle("POST /api/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{id}/{action}", func(w http.ResponseWriter, r *http.Request) {
		calls <- r.PathValue("action") + " " + r.PathValue("id") + r.Header.Get("Authorization")
		fmt.Fprint(w, "{}")
	})
	next := func() string {
		select {
		case call := <-calls:
			return call
		case <-time.After(10 * time.Second):
			t.Fatal("the homeserver is not called")
			return ""
		}
	}
	answer, body := do(t, http.MethodPost, p.public+"/sfu/get", p.legacy(), nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
	answer, body = do(t, http.MethodPost, p.public+"/delegate_delayed_leave",
		strings.Replace(p.standalone(), "{", `{"delay_id":"syd_1","delay_timeout":3600000,`, 1), nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
	require.JSONEq(t, `{}`, body)
	require.Equal(t, "*", answer.Header.Get("Access-Control-Allow-Origin"))

	who := matrixrtc.Identity(p.home.User("ana") + ":DEV")
	p.report(t, "EV_1", "participant_joined", who, "UNKNOWN_REASON")
	require.Equal(t, "restart syd_1", next())
	_, metrics := do(t, http.MethodGet, p.private+"/metrics", "", nil)
	require.Contains(t, metrics, `passerelle_leave_jobs{state="connected"} 1`)
	require.NotContains(t, metrics, "syd_1")
	p.report(t, "EV_2", "participant_left", who, "CLIENT_INITIATED")
	require.Equal(t, "send syd_1", next())
	require.Empty(t, calls)
}

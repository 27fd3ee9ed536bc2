package leave_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/config"
	"passerelle/focus/leave"
	"passerelle/focus/matrixrtc"
)

// lookup is Leaves that only look up, at a homeserver.
func lookup(t *testing.T, address string, token config.Secret) *leave.Leaves {
	t.Helper()
	base, err := url.Parse(address)
	require.NoError(t, err)
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	timing := leave.DefaultTiming()
	timing.CallTimeout = 2 * time.Second
	l, err := leave.New(leave.Options{
		Store: leave.NewStore(openSQLite(t)), Homeservers: reach{leave.API{URL: base, Token: token, Client: client}},
		SFU: &attendance{}, Timing: timing, Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	return l
}

func TestScheduled(t *testing.T) {
	var status int
	var body string
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method+" "+r.URL.EscapedPath() != "GET /base/_matrix/client/unstable/org.matrix.msc4140/delayed_events/syd_x%2F..%3Fy" ||
			r.URL.RawQuery != "user_id=%40a%26b%3Aown.example" || r.Header.Get("Authorization") != "Bearer tok" {
			t.Error("asked for " + r.Method + " " + r.URL.String())
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer home.Close()
	ask := func() (matrixrtc.ScheduledEvent, error) {
		return lookup(t, home.URL+"/base/", "tok").Scheduled(t.Context(), "own.example", "@a&b:own.example", "syd_x/..?y")
	}
	for _, c := range []struct {
		status int
		body   string
		want   time.Duration
		err    error // nil with a want of 0 is any other
	}{
		{200, `{"room_id":"!r","delay_ms":3600000}`, time.Hour, nil},
		{200, `{"room_id":"!r","delay":18000,"running_since":1}`, 18 * time.Second, nil},
		{200, `{"room_id":"!r","delay_ms":1e300}`, 100 * 365 * 24 * time.Hour, nil},
		{404, `{"errcode":"M_NOT_FOUND"}`, 0, matrixrtc.ErrNoEvent},
		{404, `{"errcode":"M_UNRECOGNIZED"}`, 0, matrixrtc.ErrEventHidden},
		{404, `<html>`, 0, matrixrtc.ErrEventHidden},
		{405, `{"errcode":"M_UNRECOGNIZED"}`, 0, matrixrtc.ErrEventHidden},
		{403, `{"errcode":"M_FORBIDDEN"}`, 0, matrixrtc.ErrEventHidden},
		{401, `{"errcode":"M_UNKNOWN_TOKEN"}`, 0, matrixrtc.ErrEventHidden},
		{429, `{"errcode":"M_LIMIT_EXCEEDED"}`, 0, nil},
		{500, `{}`, 0, nil},
		{302, `{}`, 0, nil},
		{200, `{"delay_ms":3600000}`, 0, nil},
		{200, `{"room_id":7,"delay_ms":3600000}`, 0, nil},
		{200, `not JSON`, 0, nil},
	} {
		status, body = c.status, c.body
		got, err := ask()
		switch {
		case c.want > 0:
			require.NoError(t, err, c.body)
			require.Equal(t, matrixrtc.ScheduledEvent{RoomID: "!r", Delay: c.want}, got)
		case c.err != nil:
			require.ErrorIs(t, err, c.err, "%d %s", c.status, c.body)
		default:
			require.Error(t, err, "%d %s", c.status, c.body)
			require.NotErrorIs(t, err, matrixrtc.ErrNoEvent)
			require.NotErrorIs(t, err, matrixrtc.ErrEventHidden)
			require.NotContains(t, err.Error(), "syd_x")
		}
	}
	status, body = 200, `{"room_id":"!r"}`
	got, err := ask()
	require.NoError(t, err)
	require.Zero(t, got.Delay, "it is for the caller to refuse")

	home.Close()
	_, err = ask()
	require.Error(t, err)
	require.NotContains(t, err.Error(), "syd_x")
	require.NotErrorIs(t, err, matrixrtc.ErrEventHidden, "who does not answer hides nothing")
}

// TestScheduledAsAStranger: without a token nobody is asked.
func TestScheduledAsAStranger(t *testing.T) {
	_, err := lookup(t, "http://127.0.0.1:1", "").Scheduled(t.Context(), "own.example", "@a:own.example", "syd_x")
	require.ErrorIs(t, err, matrixrtc.ErrEventHidden)
}

// TestScheduledAtRealSynapse has a real Synapse say what a registration may see.
func TestScheduledAtRealSynapse(t *testing.T) {
	h := startSynapse(t, 2)
	event := h.enter(t, h.staff[0], "key", 90*time.Second)
	all := lookup(t, h.ClientURL, asTokenOfAll)
	got, err := all.Scheduled(t.Context(), h.Name, h.staff[0].UserID, event)
	require.NoError(t, err)
	require.Equal(t, matrixrtc.ScheduledEvent{RoomID: h.room, Delay: 90 * time.Second}, got)
	_, err = all.Scheduled(t.Context(), h.Name, h.staff[1].UserID, event)
	require.ErrorIs(t, err, matrixrtc.ErrNoEvent, "somebody else's")
	_, err = all.Scheduled(t.Context(), h.Name, h.staff[0].UserID, event+"x")
	require.ErrorIs(t, err, matrixrtc.ErrNoEvent)
	for name, token := range map[string]config.Secret{"no namespace": asToken, "a token that is wrong": "x" + asToken} {
		_, err = lookup(t, h.ClientURL, token).Scheduled(t.Context(), h.Name, h.staff[0].UserID, event)
		require.ErrorIs(t, err, matrixrtc.ErrEventHidden, name)
	}
}

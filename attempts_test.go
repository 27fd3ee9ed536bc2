package main

import (
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/migrations"
)

// TestAttemptsOfOneToken connects again and again with one token, and breaks each
// connection off: after a while that has to wait, and no more rows than there were
// connections are left of what the real SFU reports.
func TestAttemptsOfOneToken(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	i := newInstance(t)
	i.start()
	_, token := i.token("eve")
	began, in, out := time.Now(), 0, 0
	for range 200 {
		conn, answer, err := websocket.Dial(t.Context(), "ws://"+i.public+"/rtc?protocol=16&auto_subscribe=1&access_token="+url.QueryEscape(token), nil)
		if err != nil {
			require.NotNil(t, answer, "%v", err)
			require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
			require.NotEmpty(t, answer.Header.Get("Retry-After"))
			out++
			continue
		}
		in++
		_, _, _ = conn.Read(t.Context())
		_ = conn.CloseNow()
	}
	require.GreaterOrEqual(t, in, 60)
	require.LessOrEqual(t, in, 61+int(time.Since(began)/(2*time.Second)))
	require.Equal(t, 200, in+out)

	db, err := migrations.Open(t.Context(), migrations.Options{Type: migrations.SQLite, Path: filepath.Join(i.dir, "p.db"), MaxOpenConns: 1, Log: zerolog.Nop()})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	rows := func(what string) (n int) {
		require.NoError(t, db.QueryRow(t.Context(), "SELECT COUNT(*) FROM "+what).Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return rows("call_participant WHERE state = 'left'") >= 10 }, patience, 50*time.Millisecond)
	i.end(i.process) // and with it the reports
	require.LessOrEqual(t, rows("call_participant"), in)
	require.LessOrEqual(t, rows("webhook_seen"), 1, "that the room is finished")
}

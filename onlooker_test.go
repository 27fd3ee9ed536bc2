package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// TestOnlookersArePutOut is with the real SFU about somebody who has connected and
// neither sends nor receives media: the SFU tells them who is in the call, and
// reports them to nobody. Thrown out of the room they are out of the call, and do
// not get in again.
func TestOnlookersArePutOut(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	var thrownOut atomic.Bool
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/is_joined") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"joined":%t}`, !thrownOut.Load() || !strings.HasPrefix(r.URL.Query().Get("mxid"), "@ana:"))
	}))
	defer home.Close()
	i := newInstance(t)
	config, err := os.ReadFile(i.config)
	require.NoError(t, err)
	config = bytes.Replace(config, []byte("focus: {membership: unverified}"), fmt.Appendf(nil,
		"focus: {membership: required}\nhomeserver: {server_name: %q, url: %q, as_token: f0a1c2d3e4b5968778695a4b3c2d1e0f}", i.home.Name(), home.URL), 1)
	require.NoError(t, os.WriteFile(i.config, config, 0o600))
	i.start()

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	address, jwt := i.token("ana")
	look := func() (*websocket.Conn, *http.Response, error) {
		return websocket.Dial(ctx, address+"/rtc?protocol=16&auto_subscribe=1&sdk=go&access_token="+url.QueryEscape(jwt), nil)
	}
	socket, _, err := look()
	require.NoError(t, err)
	defer func() { _ = socket.CloseNow() }()
	_, _, err = socket.Read(ctx)
	require.NoError(t, err, "what the SFU says to who comes")

	thrownOut.Store(true)
	began := time.Now()
	for err == nil {
		_, _, err = socket.Read(ctx)
	}
	require.NoError(t, ctx.Err(), "still in the call")
	t.Logf("out within %s", time.Since(began).Round(time.Millisecond))
	_, answer, err := look()
	require.Error(t, err)
	require.Equal(t, http.StatusForbidden, answer.StatusCode)
	require.Eventually(t, func() bool { return len(present(t, i)) == 0 }, patience, 100*time.Millisecond)
}

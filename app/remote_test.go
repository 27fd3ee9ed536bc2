package app_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/app"
	"passerelle/config"
)

// TestRelayThroughTheHomeserver: a token for another server's media server goes
// from the homeserver's listener back through the homeserver, with no trace in
// the database; and without the homeserver's help clients are sent the other way.
func TestRelayThroughTheHomeserver(t *testing.T) {
	const asToken, hsToken = "f0a1c2d3e4b5968778695a4b3c2d1e0f", "0c9f3be5a7124d68b1e2f3a4c5d6e7f8"
	type said struct {
		status int
		body   string
	}
	var answer atomic.Pointer[said] // of fed_proxy
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("Authorization") != "Bearer "+asToken:
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "/is_joined"):
			fmt.Fprint(w, `{"joined":true}`)
		case r.URL.Path == "/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy":
			body, _ := io.ReadAll(r.Body)
			if string(body) != `{"destination":"friend.example","method":"POST",`+
				`"path":"/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token",`+
				`"body":{"user_id":"@ana:own.example","url":"wss://rtc.friend.example","room_id":"!r","slot_id":"m.call#ROOM","member_id":"m"}}` {
				t.Errorf("asked %s", body)
			}
			a := answer.Load()
			w.WriteHeader(a.status)
			fmt.Fprint(w, a.body)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(home.Close)

	dir := t.TempDir()
	p := &program{file: filepath.Join(dir, "config.yaml")}
	p.write(t, fmt.Sprintf(`
server: {listen: "127.0.0.1:0", private_listen: "127.0.0.1:0", public_url: "http://127.0.0.1:8080", data_dir: %q}
database: {path: %q}
livekit: {mode: external, url: "ws://127.0.0.1:1", key: %s, secret: %s}
homeserver: {server_name: own.example, url: %q, listen: "127.0.0.1:0", as_token: %s, hs_token: %s}
federation: {rules: [{server: own.example, access: create}, {server: friend.example, access: join}]}
`, dir, filepath.Join(dir, "p.db"), sfuKey, sfuSecret, home.URL, asToken, hsToken))
	c, err := config.Load(p.file, nil)
	require.NoError(t, err)
	p.App, err = app.New(t.Context(), app.Options{Config: c, Log: zerolog.Nop(), Version: "test"})
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, p.Stop()) })

	for name, a := range map[string]struct {
		proxied said
		status  int
		want    string
	}{
		"granted":          {said{200, `{"status":200,"content":{"jwt":"theirs"}}`}, 200, `{"jwt":"theirs"}`},
		"forbidden there":  {said{200, `{"status":403,"content":{"errcode":"M_FORBIDDEN","error":"no"}}`}, 403, `{"errcode":"M_FORBIDDEN","error":"no"}`},
		"not offered":      {said{404, `{"errcode":"M_UNRECOGNIZED"}`}, 404, `M_NOT_FOUND`},
		"no prefix":        {said{400, `{"errcode":"IO.ELEMENT.MSC4512.M_FEDPROXY_NO_PROXY_PREFIX"}`}, 404, `M_NOT_FOUND`},
		"no AS":            {said{403, `{"errcode":"M_FORBIDDEN"}`}, 404, `M_NOT_FOUND`},
		"path not allowed": {said{403, `{"errcode":"IO.ELEMENT.MSC4512.M_FEDPROXY_PATH_NOT_ALLOWED"}`}, 502, `M_UNKNOWN`},
		"our own server":   {said{403, `{"errcode":"IO.ELEMENT.MSC4512.M_FEDPROXY_DESTINATION_DENIED"}`}, 502, `M_UNKNOWN`},
		"not reached":      {said{502, `{"errcode":"IO.ELEMENT.MSC4512.M_FEDPROXY_CONNECTION_FAILED"}`}, 502, `M_UNKNOWN`},
		"wrong token":      {said{401, `{"errcode":"M_UNKNOWN_TOKEN"}`}, 502, `M_UNKNOWN`},
	} {
		t.Run(name, func(t *testing.T) {
			answer.Store(&a.proxied)
			got, body := do(t, http.MethodPost,
				"http://"+p.ProxiedAddr().String()+"/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token",
				`{"server_name":"friend.example","url":"wss://rtc.friend.example","room_id":"!r","slot_id":"m.call#ROOM","member_id":"m"}`,
				http.Header{"Authorization": {"Bearer " + hsToken}, "X-Matrix-User-Identifier": {"@ana:own.example"}})
			require.Equal(t, a.status, got.StatusCode, body)
			require.Contains(t, body, a.want)
		})
	}
	require.Zero(t, p.rows(t), "what others grant is theirs to record")
	_, metrics := do(t, http.MethodGet, "http://"+p.PrivateAddr().String()+"/metrics", "", nil)
	require.Contains(t, metrics, `passerelle_focus_token_requests_total{outcome="granted",route="relayed"} 1`)
}

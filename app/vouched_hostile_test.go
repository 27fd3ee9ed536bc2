package app_test

import (
	"fmt"
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

const (
	hostileASToken = "f0a1c2d3e4b5968778695a4b3c2d1e0f"
	hostileHSToken = "0c9f3be5a7124d68b1e2f3a4c5d6e7f8"
)

// behindHomeserver starts a program whose homeserver says of everybody that
// they are in every room, and carries requests; carried counts those.
func behindHomeserver(t *testing.T) (p *program, carried *atomic.Int64) {
	t.Helper()
	carried = &atomic.Int64{}
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/is_joined"):
			fmt.Fprint(w, `{"joined":true}`)
		case strings.HasSuffix(r.URL.Path, "/fed_proxy"):
			carried.Add(1)
			fmt.Fprint(w, `{"status":200,"content":{"jwt":"theirs"}}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(home.Close)
	dir := t.TempDir()
	p = &program{file: filepath.Join(dir, "config.yaml")}
	p.write(t, fmt.Sprintf(`
server: {listen: "127.0.0.1:0", private_listen: "127.0.0.1:0", public_url: "http://127.0.0.1:8080", data_dir: %q}
database: {path: %q}
livekit: {mode: external, url: "ws://127.0.0.1:1", key: %s, secret: %s}
homeserver: {server_name: own.example, url: %q, listen: "127.0.0.1:0", as_token: %s, hs_token: %s}
federation: {rules: [{server: own.example, access: create}, {server: friend.example, access: join}]}
focus: {limits: {address: 0, server: 0, user: 0}}
`, dir, filepath.Join(dir, "p.db"), sfuKey, sfuSecret, home.URL, hostileASToken, hostileHSToken))
	c, err := config.Load(p.file, nil)
	require.NoError(t, err)
	p.App, err = app.New(t.Context(), app.Options{Config: c, Log: zerolog.Nop(), Version: "test"})
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	return p, carried
}

// TestARelayLeadsNowhereElse: what a user names as a server is carried to none
// but those of the policy, and to no address.
func TestARelayLeadsNowhereElse(t *testing.T) {
	p, carried := behindHomeserver(t)
	ask := func(server, sfu string) (int, string) {
		got, body := do(t, http.MethodPost, "http://"+p.ProxiedAddr().String()+"/_matrix/client/v1/rtc/livekit/get_token",
			fmt.Sprintf(`{"server_name":%q,"url":%q,"room_id":"!r","slot_id":"s","member_id":"m"}`, server, sfu),
			http.Header{"Authorization": {"Bearer " + hostileHSToken}, "X-Matrix-User-Identifier": {"@ana:own.example"}})
		return got.StatusCode, body
	}
	for _, server := range []string{
		"evil.example", "127.0.0.1", "127.0.0.1:6379", "localhost:6379", "169.254.169.254", "[::1]:8448", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433",
		"friend.example.evil.example", "evil.friend.example", "friend.example@evil.example", "evil.example/friend.example", "friend.example/..", "friend.example?x",
		"friend.example#x", "http://friend.example", "friend.example ", " friend.example", "friend.example:99999", "*", "*.example", "frіend.example",
	} {
		status, body := ask(server, "wss://rtc.friend.example")
		require.Equal(t, http.StatusBadRequest, status, "%s: %s", server, body)
		require.Contains(t, body, "M_INVALID_PARAM", server)
	}
	require.Zero(t, carried.Load())
	status, body := ask("friend.example", "wss://rtc.friend.example")
	require.Equal(t, http.StatusOK, status, body)
	require.EqualValues(t, 1, carried.Load())
	require.Zero(t, p.rows(t))
}

// TestSpoofedHeaders: who sends to the public listener what a homeserver sends
// to its own is nobody, the true hs_token included.
func TestSpoofedHeaders(t *testing.T) {
	p, carried := behindHomeserver(t)
	public := "http://" + p.PublicAddr().String()
	for _, path := range []string{
		"/_matrix/client/v1/rtc/livekit/get_token", "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token",
		"/_matrix/client/v1/rtc/livekit/delegate_delayed_leave", "/_matrix/federation/v1/rtc/livekit/get_token",
		"/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token", "/get_token", "/sfu/get", "/delegate_delayed_leave", "/_matrix/app/v1/ping",
	} {
		for _, who := range []http.Header{
			{"X-Matrix-User-Identifier": {"@ana:own.example"}}, {"X-Matrix-Origin": {"friend.example"}}, {"x-matrix-user-identifier": {"@ana:own.example"}},
		} {
			for _, server := range []string{"", `"server_name":"friend.example",`} {
				who["Authorization"] = []string{"Bearer " + hostileHSToken}
				got, body := do(t, http.MethodPost, public+path, `{`+server+`"user_id":"@bo:friend.example","url":"ws://127.0.0.1:8080",
					"room_id":"!r","slot_id":"s","member_id":"m","delay_id":"d","delay_timeout":1000}`, who)
				require.Contains(t, []int{http.StatusBadRequest, http.StatusNotFound}, got.StatusCode, "%s: %s", path, body)
				require.NotContains(t, body, "jwt")
			}
		}
	}
	require.Zero(t, carried.Load())
	require.Zero(t, p.rows(t))
}

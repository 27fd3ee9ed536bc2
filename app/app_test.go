package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	protocol "github.com/livekit/protocol/livekit"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"passerelle/app"
	"passerelle/config"
	"passerelle/federation/federationtest"
	"passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations"
)

const (
	sfuKey    = "APIwhole"
	sfuSecret = "6f1c0e8b54d24b7f9a31c2d07be89a45"
)

// program is the whole of Passerelle in this process, with a real database, a
// homeserver for tests and something that answers like LiveKit's room service.
type program struct {
	*app.App
	home    *federationtest.Homeserver
	public  string
	private string
	made    atomic.Int32 // rooms that the SFU was asked to make
	file    string       // the configuration

	mu      sync.Mutex
	removed []string // whom the SFU was asked to remove
}

func startProgram(t *testing.T) *program {
	t.Helper()
	return startLogging(t, zerolog.Nop())
}

func startLogging(t *testing.T, log zerolog.Logger) *program {
	t.Helper()
	return startWith(t, log, "")
}

// startWith starts it with more in its configuration.
func startWith(t *testing.T, log zerolog.Logger, more string) *program {
	t.Helper()
	p := &program{home: federationtest.New(t, federationtest.GoodCertificate)}
	sfu := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/CreateRoom"):
			p.made.Add(1)
			w.Header().Set("Content-Type", "application/protobuf")
		case strings.HasSuffix(r.URL.Path, "/RemoveParticipant"):
			var who protocol.RoomParticipantIdentity
			body, _ := io.ReadAll(r.Body)
			_ = proto.Unmarshal(body, &who)
			p.mu.Lock()
			p.removed = append(p.removed, who.Identity)
			p.mu.Unlock()
			w.Header().Set("Content-Type", "application/protobuf")
		case strings.HasSuffix(r.URL.Path, "/ListRooms"), strings.HasSuffix(r.URL.Path, "/ListParticipants"):
			w.Header().Set("Content-Type", "application/protobuf")
		case strings.HasPrefix(r.URL.Path, "/rtc"):
			fmt.Fprint(w, "success")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(sfu.Close)

	dir := t.TempDir()
	p.file = filepath.Join(dir, "config.yaml")
	p.write(t, fmt.Sprintf(`
server: {listen: "127.0.0.1:0", private_listen: "127.0.0.1:0", public_url: "http://127.0.0.1:8080/rtc-focus", data_dir: %q}
database: {path: %q}
livekit: {mode: external, url: %q, key: %s, secret: %s}
federation:
  allow_networks: ["127.0.0.0/8"]
  ca_files: [%q]
  timeout: 2s
  rules: [{server: %q, access: create}, {server: "127.0.0.1:1", access: join}]
focus: {membership: unverified, limits: {address: 30, user: 0}}
`, dir, filepath.Join(dir, "p.db"), sfu.URL, sfuKey, sfuSecret, p.home.CAFile(), p.home.Name())+more)
	load := func() (*config.Config, error) { return config.Load(p.file, nil) }
	c, err := load()
	require.NoError(t, err)
	p.App, err = app.New(t.Context(), app.Options{Config: c, Load: load, Log: log, Version: "test"})
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, p.Stop()) })
	p.public, p.private = "http://"+p.PublicAddr().String(), "http://"+p.PrivateAddr().String()
	return p
}

func (p *program) write(t *testing.T, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(p.file, []byte(content), 0o600))
}

// legacy and standalone are good requests of a user of the homeserver.
func (p *program) legacy() string {
	return fmt.Sprintf(`{"room":"!r:hs","device_id":"DEV","openid_token":{"access_token":%q,"token_type":"Bearer",
		"matrix_server_name":%q,"expires_in":3600}}`, p.home.Issue("ana"), p.home.Name())
}

func (p *program) standalone() string {
	return fmt.Sprintf(`{"room_id":"!r:hs","slot_id":"m.call#ROOM","openid_token":{"access_token":%q,"matrix_server_name":%q},
		"member":{"id":"m","claimed_user_id":%q,"claimed_device_id":"DEV"}}`, p.home.Issue("ana"), p.home.Name(), p.home.User("ana"))
}

func do(t *testing.T, method, url, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for name, values := range header {
		request.Header[name] = values
	}
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer, string(text)
}

// rows counts everything that a request may leave behind.
func (p *program) rows(t *testing.T) int {
	t.Helper()
	c, err := config.Load(p.file, nil)
	require.NoError(t, err)
	db, err := migrations.Open(t.Context(), migrations.Options{
		Type: c.Database.Type, Path: c.Database.Path, MaxOpenConns: 1, Log: zerolog.Nop()})
	require.NoError(t, err)
	defer db.Close()
	total := 0
	for _, table := range []string{"call_session", "call_grant", "call_participant", "webhook_seen", "delayed_leave"} {
		var n int
		require.NoError(t, db.QueryRow(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
		total += n
	}
	return total
}

func TestTokensUnderAnyPrefix(t *testing.T) {
	p := startProgram(t)
	door, err := livekit.NewDoorTokens(sfuKey, sfuSecret)
	require.NoError(t, err)
	tokens := livekit.NewVerifier(door)
	for _, c := range []struct {
		path, body string
		identity   matrixrtc.Identity
	}{
		{"/sfu/get", p.legacy(), matrixrtc.Identity(p.home.User("ana") + ":DEV")},
		{"//sfu/get", p.legacy(), matrixrtc.Identity(p.home.User("ana") + ":DEV")},
		{"/rtc-focus/sfu/get", p.legacy(), matrixrtc.Identity(p.home.User("ana") + ":DEV")},
		{"/any/other/prefix//get_token", p.standalone(), ""},
	} {
		answer, body := do(t, http.MethodPost, p.public+c.path, c.body, http.Header{"Origin": {"https://call.example"}})
		require.Equal(t, http.StatusOK, answer.StatusCode, body)
		require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"))
		require.Equal(t, "application/json", answer.Header.Get("Content-Type"))
		var got struct{ URL, JWT string }
		require.NoError(t, json.Unmarshal([]byte(body), &got))
		require.Equal(t, "ws://127.0.0.1:8080/rtc-focus", got.URL)
		admission, err := tokens.Verify(got.JWT)
		require.NoError(t, err)
		if c.identity != "" {
			require.Equal(t, c.identity, admission.Identity)
		}
		// The token opens the door, and no other one does.
		for _, route := range []string{"/rtc/validate", "/x/rtc/v1/validate"} {
			answer, body = do(t, http.MethodGet, p.public+route+"?access_token="+got.JWT, "", nil)
			require.Equal(t, http.StatusOK, answer.StatusCode, body)
			answer, _ = do(t, http.MethodGet, p.public+route+"?access_token="+got.JWT[:len(got.JWT)-4]+"AAAA", "", nil)
			require.Equal(t, http.StatusForbidden, answer.StatusCode)
		}
	}
	require.Positive(t, p.made.Load())
	require.Equal(t, 3, p.rows(t), "one session, two identities")
}

// TestBadRequests holds status, Matrix error code, CORS headers and the
// database against every request that is not good.
func TestBadRequests(t *testing.T) {
	p := startProgram(t)
	with := func(body, old, new string) string {
		require.Contains(t, body, old)
		return strings.Replace(body, old, new, 1)
	}
	foreign := federationtest.New(t, federationtest.GoodCertificate)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               string
		asks               int // how often the homeserver is asked
		misbehave          federationtest.Misbehaviour
	}{
		"not JSON":              {path: "/sfu/get", body: "{", status: 400, code: "M_NOT_JSON"},
		"nothing":               {path: "/get_token", body: "", status: 400, code: "M_NOT_JSON"},
		"an array":              {path: "/sfu/get", body: "[]", status: 400, code: "M_NOT_JSON"},
		"two documents":         {path: "/sfu/get", body: "{}{}", status: 400, code: "M_NOT_JSON"},
		"deep nesting":          {path: "/sfu/get", body: strings.Repeat("[", 20000), status: 400, code: "M_NOT_JSON"},
		"wrong type":            {path: "/sfu/get", body: with(p.legacy(), `"!r:hs"`, `7`), status: 400, code: "M_NOT_JSON"},
		"wrong type inside":     {path: "/get_token", body: with(p.standalone(), `"m"`, `{}`), status: 400, code: "M_NOT_JSON"},
		"too large":             {path: "/sfu/get", body: `{"x":"` + strings.Repeat("x", 1<<20) + `"}`, status: 413, code: "M_TOO_LARGE"},
		"no room":               {path: "/sfu/get", body: with(p.legacy(), `"!r:hs"`, `""`), status: 400, code: "M_BAD_JSON"},
		"no room_id":            {path: "/get_token", body: with(p.standalone(), `"room_id"`, `"room"`), status: 400, code: "M_BAD_JSON"},
		"no slot":               {path: "/get_token", body: with(p.standalone(), `m.call#ROOM`, ``), status: 400, code: "M_BAD_JSON"},
		"no member id":          {path: "/get_token", body: with(p.standalone(), `"id":"m"`, `"id":""`), status: 400, code: "M_BAD_JSON"},
		"no claimed device":     {path: "/get_token", body: with(p.standalone(), `"DEV"`, `null`), status: 400, code: "M_BAD_JSON"},
		"no OpenID token":       {path: "/sfu/get", body: `{"room":"!r","device_id":"D"}`, status: 400, code: "M_BAD_JSON"},
		"room too long":         {path: "/sfu/get", body: with(p.legacy(), "!r:hs", "!"+strings.Repeat("r", 255)), status: 400, code: "M_BAD_JSON"},
		"control character":     {path: "/sfu/get", body: with(p.legacy(), "!r:hs", `!\u0000`), status: 400, code: "M_BAD_JSON"},
		"colon in the device":   {path: "/sfu/get", body: with(p.legacy(), `"DEV"`, `"8448:DEV"`), status: 400, code: "M_BAD_JSON"},
		"half a delegation":     {path: "/sfu/get", body: with(p.legacy(), `{`, `{"delay_id":"x",`), status: 400, code: "M_BAD_JSON"},
		"a delegation":          {path: "/get_token", body: with(p.standalone(), `{`, `{"delay_id":"x","delay_timeout":1000,`), status: 400, code: "M_BAD_JSON", asks: 1},
		"unknown server":        {path: "/sfu/get", body: with(p.legacy(), p.home.Name(), foreign.Name()), status: 403, code: "M_FORBIDDEN"},
		"server is an address":  {path: "/sfu/get", body: with(p.legacy(), p.home.Name(), p.home.Name()+"/x?"), status: 403, code: "M_FORBIDDEN"},
		"server is down":        {path: "/sfu/get", body: with(p.legacy(), p.home.Name(), "127.0.0.1:1"), status: 401, code: "M_UNAUTHORIZED"},
		"expired OpenID token":  {path: "/sfu/get", body: with(p.legacy(), `"access_token":"`, `"access_token":"old`), status: 401, code: "M_UNAUTHORIZED", asks: 1},
		"another user":          {path: "/get_token", body: with(p.standalone(), `"@ana:`, `"@eve:`), status: 401, code: "M_UNAUTHORIZED", asks: 1},
		"foreign sub":           {path: "/sfu/get", body: p.legacy(), status: 401, code: "M_UNAUTHORIZED", asks: 1, misbehave: federationtest.Body(`{"sub":"@ana:victim.example"}`)},
		"homeserver fails":      {path: "/sfu/get", body: p.legacy(), status: 401, code: "M_UNAUTHORIZED", asks: 1, misbehave: federationtest.Status(500)},
		"homeserver redirects":  {path: "/sfu/get", body: p.legacy(), status: 401, code: "M_UNAUTHORIZED", asks: 1, misbehave: federationtest.Redirect("http://127.0.0.1/")},
		"GET":                   {method: "GET", path: "/sfu/get", status: 405},
		"PUT":                   {method: "PUT", path: "/get_token", body: p.standalone(), status: 405},
		"DELETE":                {method: "DELETE", path: "/get_token", status: 405},
		"delegation, empty":     {path: "/delegate_delayed_leave", status: 400, code: "M_NOT_JSON"},
		"delegation of nothing": {path: "/delegate_delayed_leave", body: p.standalone(), status: 400, code: "M_BAD_JSON"},
		"delegation, no client API": {path: "/delegate_delayed_leave", body: with(p.standalone(), `{`, `{"delay_id":"x","delay_timeout":1000,`),
			status: 400, code: "M_BAD_JSON", asks: 1},
		"no such route":          {path: "/sfu", body: p.legacy(), status: 404, code: "M_UNRECOGNIZED"},
		"LiveKit's room service": {path: "/twirp/livekit.RoomService/CreateRoom", body: "{}", status: 404, code: "M_UNRECOGNIZED"},
		"LiveKit's WHIP":         {path: "/whip/v1", status: 404, code: "M_UNRECOGNIZED"},
		"LiveKit's agents":       {method: "GET", path: "/agent", status: 404, code: "M_UNRECOGNIZED"},
		"metrics in public":      {method: "GET", path: "/metrics", status: 404, code: "M_UNRECOGNIZED"},
		"webhooks in public":     {path: "/sfu_webhook", body: "{}", status: 404, code: "M_UNRECOGNIZED"},
		"the page itself":        {method: "GET", path: "/", status: 404, code: "M_UNRECOGNIZED"},
		"signalling, no token":   {method: "GET", path: "/rtc", status: 403},
		"signalling, two tokens": {method: "GET", path: "/rtc/v1/validate?access_token=a&access_token=b", status: 403},
		"signalling, bad token":  {method: "GET", path: "/rtc/v1/validate?access_token=a.b.c", status: 403},
		"signalling, wrong verb": {method: "POST", path: "/rtc", status: 405},
		"a path that climbs":     {path: "/sfu/get/../../twirp/x", status: 404, code: "M_UNRECOGNIZED"},
		"an escaped path":        {path: "/sfu%2Fget%2f..%2fx", status: 404, code: "M_UNRECOGNIZED"},
	} {
		t.Run(name, func(t *testing.T) {
			p.home.Misbehave(c.misbehave)
			before := p.home.Requests()
			method := c.method
			if method == "" {
				method = http.MethodPost
			}
			// Without an Origin, as a program that is not a browser asks.
			answer, body := do(t, method, p.public+c.path, c.body, nil)
			require.Equal(t, c.status, answer.StatusCode, body)
			if c.code != "" {
				var e struct{ Errcode, Error string }
				require.NoError(t, json.Unmarshal([]byte(body), &e), body)
				require.Equal(t, c.code, e.Errcode)
				require.NotEmpty(t, e.Error)
				require.Equal(t, "application/json", answer.Header.Get("Content-Type"))
			}
			require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"))
			require.Equal(t, c.asks, p.home.Requests()-before)
			require.Zero(t, p.rows(t), "the database is unchanged")
			require.Zero(t, p.made.Load())
		})
	}
}

func TestPreflights(t *testing.T) {
	p := startProgram(t)
	for path, methods := range map[string]string{
		"/sfu/get": "POST, OPTIONS", "/x/get_token": "POST, OPTIONS", "/delegate_delayed_leave": "POST, OPTIONS",
		"/rtc": "GET, OPTIONS", "/rtc/v1": "GET, OPTIONS", "/rtc/v1/validate": "GET, OPTIONS",
	} {
		answer, body := do(t, http.MethodOptions, p.public+path, "", http.Header{
			"Origin": {"https://call.example"}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type"}})
		require.Equal(t, http.StatusOK, answer.StatusCode)
		require.Empty(t, body)
		require.Equal(t, "*", answer.Header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, methods, answer.Header.Get("Access-Control-Allow-Methods"))
		require.Contains(t, answer.Header.Get("Access-Control-Allow-Headers"), "Content-Type")
	}
	for _, path := range []string{"/", "/rtc-focus", "/rtc-focus/"} {
		answer, _ := do(t, http.MethodHead, p.public+path, "", nil)
		require.Equal(t, http.StatusOK, answer.StatusCode, path)
	}
}

func TestPrivateListener(t *testing.T) {
	p := startProgram(t)
	_, _ = do(t, http.MethodPost, p.public+"/sfu/get", p.legacy(), nil)
	answer, body := do(t, http.MethodGet, p.private+"/livez", "", nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
	answer, body = do(t, http.MethodGet, p.private+"/readyz", "", nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
	require.JSONEq(t, `{"database":"ok","sfu":"ok"}`, body)
	_, body = do(t, http.MethodGet, p.private+"/metrics", "", nil)
	require.Contains(t, body, `passerelle_focus_token_requests_total{outcome="granted",route="legacy"} 1`)
	require.Contains(t, body, `passerelle_build_info{version="test"} 1`)
	require.NotContains(t, body, p.home.Name(), "no server, user or room stands on a metric")
	answer, _ = do(t, http.MethodPost, p.private+"/sfu_webhook", "{}", nil)
	require.Equal(t, http.StatusUnauthorized, answer.StatusCode)
	answer, _ = do(t, http.MethodPost, p.private+"/sfu/get", p.legacy(), nil)
	require.Equal(t, http.StatusNotFound, answer.StatusCode)
}

func TestReload(t *testing.T) {
	p := startProgram(t)
	good, err := os.ReadFile(p.file)
	require.NoError(t, err)
	ask := func() int {
		answer, _ := do(t, http.MethodPost, p.public+"/sfu/get", p.legacy(), nil)
		return answer.StatusCode
	}
	require.Equal(t, http.StatusOK, ask())

	p.write(t, strings.Replace(string(good), "access: create", "access: deny", 1))
	require.NoError(t, p.Reload())
	require.Equal(t, http.StatusForbidden, ask())

	p.write(t, strings.Replace(string(good), "timeout: 2s", "timeout: soon", 1))
	require.Error(t, p.Reload())
	require.Equal(t, http.StatusForbidden, ask(), "a file with mistakes changes nothing")
	_, metrics := do(t, http.MethodGet, p.private+"/metrics", "", nil)
	require.Contains(t, metrics, "passerelle_config_last_reload_successful 0")

	p.write(t, string(good))
	require.NoError(t, p.Reload())
	require.Equal(t, http.StatusOK, ask())
}

// TestReloadNamesWhatNeedsARestart at every reload, for as long as it does.
func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	var said bytes.Buffer
	p := startLogging(t, zerolog.New(&said))
	good, err := os.ReadFile(p.file)
	require.NoError(t, err)
	reload := func(content string) string {
		p.write(t, content)
		said.Reset()
		require.NoError(t, p.Reload())
		return said.String()
	}
	changed := strings.Replace(string(good), "timeout: 2s", "timeout: 3s", 1)
	for range 2 {
		require.Contains(t, reload(changed), `"keys":["federation.timeout"]`)
	}
	require.NotContains(t, reload(string(good)), "need a restart", "it runs with that already")
}

func TestStopIsFinal(t *testing.T) {
	p := startProgram(t)
	require.NoError(t, p.Stop())
	require.NoError(t, p.Stop(), "a second stop does nothing")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.public+"/", nil)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(request)
	require.Error(t, err)
}

func TestPortTaken(t *testing.T) {
	p := startProgram(t)
	good, err := os.ReadFile(p.file)
	require.NoError(t, err)
	p.write(t, strings.Replace(string(good), `listen: "127.0.0.1:0"`, `listen: "`+p.PublicAddr().String()+`"`, 1))
	c, err := config.Load(p.file, nil)
	require.NoError(t, err)
	_, err = app.New(t.Context(), app.Options{Config: c, Log: zerolog.Nop()})
	require.ErrorContains(t, err, "server.listen")
	require.ErrorContains(t, err, "is another Passerelle running?")

	c.Server.Listen = "192.0.2.1:0" // no address of this machine
	_, err = app.New(t.Context(), app.Options{Config: c, Log: zerolog.Nop()})
	require.ErrorContains(t, err, "server.listen")
	require.NotContains(t, err.Error(), "another Passerelle")
}

// A proxy of ours says where a request comes from; anybody else may say what
// they like.
func TestLimitByAddress(t *testing.T) {
	p := startProgram(t)
	good, err := os.ReadFile(p.file)
	require.NoError(t, err)
	limit := func(perSecond string) {
		p.write(t, strings.Replace(string(good), "address: 30", "address: "+perSecond, 1))
		require.NoError(t, p.Reload())
	}
	// tries is how many requests pass before one is refused. A fresh client has
	// ten, and gets one more each second.
	tries := func(forwarded ...string) int {
		for n := range 30 {
			answer, _ := do(t, http.MethodPost, p.public+"/sfu/get", "{}", http.Header{"X-Forwarded-For": forwarded})
			require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"))
			if answer.StatusCode == http.StatusTooManyRequests {
				require.NotEmpty(t, answer.Header.Get("Retry-After"))
				return n
			}
		}
		return 30
	}
	const fresh, spent = 10, 5 // five seconds may pass before a spent one is asked again
	limit("1")
	require.GreaterOrEqual(t, tries("192.0.2.1"), fresh)
	require.GreaterOrEqual(t, tries("192.0.2.2"), fresh, "another client behind the same proxy")
	require.GreaterOrEqual(t, tries("192.0.2.9, 192.0.2.3"), fresh)
	for _, same := range [][]string{
		{"192.0.2.8, 192.0.2.3"}, // the client itself may write what it likes in front
		{"192.0.2.7", "192.0.2.3"},
		{"192.0.2.3, 127.0.0.9"}, // through two proxies of ours
	} {
		require.Less(t, tries(same...), spent, "%q is 192.0.2.3", same)
	}
	require.GreaterOrEqual(t, tries("192.0.2.9"), fresh)
	limit("0")
	require.Equal(t, 30, tries("192.0.2.1"))
}

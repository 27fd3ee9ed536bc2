package app_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	mautrix "maunium.net/go/mautrix/federation"

	"passerelle/app"
	"passerelle/config"
	"passerelle/federation/federationtest"
	"passerelle/focus/livekit"
)

const signedURI = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"

// signedProgram is a Passerelle beside a homeserver that hands nothing over and
// says who is in a room, to which the users of another one may come.
type signedProgram struct {
	*program
	friend *federationtest.Homeserver
	mu     sync.Mutex
	in     map[string]bool
}

func (s *signedProgram) set(user string, in bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in[user] = in
}

func startSigned(t *testing.T, on bool, timeout string) *signedProgram {
	t.Helper()
	s := &signedProgram{program: &program{}, friend: federationtest.New(t, federationtest.GoodCertificate), in: map[string]bool{}}
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/is_joined") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintf(w, `{"joined":%t}`, s.in[r.URL.Query().Get("mxid")])
	}))
	t.Cleanup(home.Close)
	dir := t.TempDir()
	s.file = filepath.Join(dir, "config.yaml")
	s.write(t, fmt.Sprintf(`
server: {listen: "127.0.0.1:0", private_listen: "127.0.0.1:0", public_url: "http://127.0.0.1:8080/rtc", data_dir: %q}
database: {path: %q}
livekit: {mode: external, url: "ws://127.0.0.1:1", key: %s, secret: %s}
homeserver: {server_name: own.example, url: %q, as_token: f0a1c2d3e4b5968778695a4b3c2d1e0f}
federation:
  allow_networks: ["127.0.0.0/8"]
  ca_files: [%q]
  timeout: %s
  signed_requests: %t
  rules: [{server: own.example, access: create}, {server: %q, access: join}]
focus: {limits: {address: 0}}
`, dir, filepath.Join(dir, "p.db"), sfuKey, sfuSecret, home.URL, s.friend.CAFile(), timeout, on, s.friend.Name()))
	c, err := config.Load(s.file, nil)
	require.NoError(t, err)
	s.App, err = app.New(t.Context(), app.Options{Config: c, Log: zerolog.Nop(), Version: "test"})
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	s.public, s.private = "http://"+s.PublicAddr().String(), "http://"+s.PrivateAddr().String()
	return s
}

// request is a good one for a user of the friend.
func (s *signedProgram) request() federationtest.Request {
	return federationtest.Request{
		Method: http.MethodPost, URI: signedURI, Origin: s.friend.Name(), Destination: "own.example",
		Body: fmt.Sprintf(`{"user_id":%q,"url":"ws://127.0.0.1:8080/rtc","room_id":"!r","slot_id":"m.call#ROOM","member_id":"m"}`, s.friend.User("bo")),
	}
}

// send sends it with those headers.
func (s *signedProgram) send(t *testing.T, r federationtest.Request, headers ...string) (int, string) {
	t.Helper()
	answer, body := do(t, r.Method, s.public+r.URI, r.Body, http.Header{"Authorization": headers, "Content-Type": {"application/json"}})
	require.Equal(t, "application/json", answer.Header.Get("Content-Type"))
	require.True(t, json.Valid([]byte(body)), body)
	require.Empty(t, answer.Header.Values("Access-Control-Allow-Origin"), "no browser comes here")
	return answer.StatusCode, body
}

// TestSignedToken: a request that its homeserver has signed gets a token to see
// and hear, and the same request again gets the same place, as long as the user
// is in the room and no longer.
func TestSignedToken(t *testing.T) {
	s := startSigned(t, true, "2s")
	s.set(s.friend.User("bo"), true)
	r := s.request()
	header := federationtest.Sign(t, s.friend.Key(), r)
	door, err := livekit.NewDoorTokens(sfuKey, sfuSecret)
	require.NoError(t, err)
	var first string
	for range 3 {
		status, body := s.send(t, r, header)
		require.Equal(t, http.StatusOK, status, body)
		var got struct{ JWT string }
		require.NoError(t, json.Unmarshal([]byte(body), &got))
		ticket, err := livekit.NewVerifier(door).Verify(got.JWT)
		require.NoError(t, err)
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(got.JWT, ".")[1])
		require.NoError(t, err)
		require.Contains(t, string(payload), `"canPublish":false`)
		if first == "" {
			first = string(ticket.Identity)
		}
		require.Equal(t, first, string(ticket.Identity))
	}
	require.Equal(t, 2, s.rows(t), "one session and one grant, however often it is sent")
	require.Equal(t, 1, s.friend.KeyRequests())
	_, metrics := do(t, http.MethodGet, s.private+"/metrics", "", nil)
	require.Contains(t, metrics, `passerelle_federation_signed_requests_total{outcome="verified"} 3`)
	require.Contains(t, metrics, `passerelle_focus_token_requests_total{outcome="granted",route="federated"} 3`)

	s.set(s.friend.User("bo"), false)
	require.Eventually(t, func() bool {
		status, body := s.send(t, r, header)
		return status == http.StatusForbidden && strings.Contains(body, `"errcode":"M_FORBIDDEN"`)
	}, 20*time.Second, 500*time.Millisecond, "a yes counts for five seconds")
}

// TestSignedRefusals holds the status, the code, the database and what went out
// against every request that is not good.
func TestSignedRefusals(t *testing.T) {
	s := startSigned(t, true, "2s")
	s.set(s.friend.User("bo"), true)
	s.set("@eve:evil.example", true)
	stranger := federationtest.New(t, federationtest.GoodCertificate)
	rename := func(old, fresh string) func(*federationtest.Request) {
		return func(r *federationtest.Request) {
			require.Contains(t, r.Body, old)
			r.Body = strings.Replace(r.Body, old, fresh, 1)
		}
	}
	header := func(old, fresh string) func(string) []string {
		return func(h string) []string {
			require.Contains(t, h, old)
			return []string{strings.Replace(h, old, fresh, 1)}
		}
	}
	for name, c := range map[string]struct {
		before  func(*federationtest.Request) // before it is signed
		after   func(*federationtest.Request)
		key     *mautrix.SigningKey
		headers func(good string) []string
		status  int
		code    string
	}{
		"no header":              {headers: func(string) []string { return nil }, status: 403, code: "M_UNAUTHORIZED"},
		"two headers":            {headers: func(h string) []string { return []string{h, h} }, status: 403, code: "M_UNAUTHORIZED"},
		"another scheme":         {headers: header("X-Matrix", "Bearer"), status: 403, code: "M_UNAUTHORIZED"},
		"a parameter twice":      {headers: header("key=", `destination="own.example",key=`), status: 403, code: "M_UNAUTHORIZED"},
		"another destination":    {before: func(r *federationtest.Request) { r.Destination = "else.example" }, status: 403, code: "M_UNAUTHORIZED"},
		"another origin":         {headers: header(s.friend.Name(), stranger.Name()), status: 403, code: "M_FORBIDDEN"},
		"a server of no rule":    {before: func(r *federationtest.Request) { r.Origin = stranger.Name() }, key: stranger.Key(), status: 403, code: "M_FORBIDDEN"},
		"the key of another":     {key: stranger.Key(), status: 403, code: "M_UNAUTHORIZED"},
		"another body":           {after: rename("bo:", "eve:"), status: 403, code: "M_UNAUTHORIZED"},
		"another path":           {after: func(r *federationtest.Request) { r.URI = "/_matrix/federation/v1/rtc/livekit/get_token" }, status: 403, code: "M_UNAUTHORIZED"},
		"a query":                {after: func(r *federationtest.Request) { r.URI += "?x=1" }, status: 403, code: "M_UNAUTHORIZED"},
		"no JSON":                {after: func(r *federationtest.Request) { r.Body = "{" }, status: 400, code: "M_NOT_JSON"},
		"too large":              {after: func(r *federationtest.Request) { r.Body = strings.Repeat(" ", 40<<10) + r.Body }, status: 413, code: "M_TOO_LARGE"},
		"GET":                    {after: func(r *federationtest.Request) { r.Method = http.MethodGet }, status: 405, code: "M_UNRECOGNIZED"},
		"a user of another":      {before: rename(s.friend.User("bo"), "@eve:evil.example"), status: 403, code: "M_FORBIDDEN"},
		"a user of ours":         {before: rename(s.friend.User("bo"), "@ana:own.example"), status: 403, code: "M_FORBIDDEN"},
		"who is not in the room": {before: rename("bo:", "cy:"), status: 403, code: "M_FORBIDDEN"},
		"another media server":   {before: rename(":8080/rtc", ":8081/rtc"), status: 400, code: "M_INVALID_PARAM"},
		"no room":                {before: rename("room_id", "room"), status: 400, code: "M_BAD_JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			r, key := s.request(), s.friend.Key()
			if c.before != nil {
				c.before(&r)
			}
			if c.key != nil {
				key = c.key
			}
			headers := []string{federationtest.Sign(t, key, r)}
			if c.headers != nil {
				headers = c.headers(headers[0])
			}
			if c.after != nil {
				c.after(&r)
			}
			status, body := s.send(t, r, headers...)
			require.Equal(t, c.status, status, body)
			require.Contains(t, body, `"errcode":"`+c.code+`"`)
		})
	}
	require.Zero(t, s.rows(t))
	require.Zero(t, stranger.Connections(), "nobody asks a server that may not join")
}

// TestSignedWithASlowKeyServer: it takes as long as the timeout allows, and the
// next one is told at once.
func TestSignedWithASlowKeyServer(t *testing.T) {
	s := startSigned(t, true, "500ms")
	s.friend.Keys(federationtest.Hang)
	r := s.request()
	header := federationtest.Sign(t, s.friend.Key(), r)
	began := time.Now()
	for range 20 {
		status, body := s.send(t, r, header)
		require.Equal(t, http.StatusForbidden, status, body)
		require.Contains(t, body, "M_UNAUTHORIZED")
		require.NotContains(t, body, "127.0.0.1")
	}
	require.Less(t, time.Since(began), 5*time.Second)
	require.Equal(t, 1, s.friend.KeyRequests())
}

// TestSignedIsOffByDefault: nothing is asked of anybody then.
func TestSignedIsOffByDefault(t *testing.T) {
	s := startSigned(t, false, "2s")
	s.set(s.friend.User("bo"), true)
	r := s.request()
	target, err := url.JoinPath(s.public, r.URI)
	require.NoError(t, err)
	answer, body := do(t, r.Method, target, r.Body, http.Header{"Authorization": {federationtest.Sign(t, s.friend.Key(), r)}})
	require.Equal(t, http.StatusBadRequest, answer.StatusCode, body)
	require.Zero(t, s.friend.Connections())
	require.Zero(t, s.rows(t))
}

package proxied_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
	"passerelle/focus/proxied"
)

const (
	hsToken   = "2b7d1c94e6f04a8d9b3c5e7f1a2d4c68"
	clientV1  = "/_matrix/client/v1/rtc/livekit/"
	clientNow = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/"
	serverV1  = "/_matrix/federation/v1/rtc/livekit/"
	serverNow = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/"
)

// listener notes for whom it was asked.
type listener struct {
	*proxied.Listener
	asked []string
}

func newListener(delegates bool) *listener {
	l := &listener{}
	note := func(what string) proxied.Handler {
		return func(w http.ResponseWriter, r *http.Request, caller matrixrtc.Caller) {
			body, _ := io.ReadAll(r.Body)
			l.asked = append(l.asked, what+" "+string(caller.User)+"|"+caller.Origin+" "+string(body))
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{}"))
		}
	}
	o := proxied.Options{HSToken: hsToken, Token: note("token"), Log: zerolog.Nop(), Registerer: prometheus.NewRegistry()}
	if delegates {
		o.Delegate = note("delegate")
	}
	l.Listener = proxied.New(o)
	return l
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func (l *listener) ask(t *testing.T, method, path string, h http.Header, body io.Reader) (int, string) {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, path, body)
	request.Header = h
	recorder := httptest.NewRecorder()
	l.ServeHTTP(recorder, request)
	var object map[string]any
	require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &object), "always a JSON object: %s", recorder.Body)
	require.Equal(t, "application/json", recorder.Header().Get("Content-Type"))
	for name := range recorder.Header() {
		require.NotContains(t, name, "Access-Control", "the homeserver sets its own")
	}
	return recorder.Code, recorder.Body.String()
}

func TestRoutes(t *testing.T) {
	user := header("Authorization", "Bearer "+hsToken, "X-Matrix-User-Identifier", "@ana:own.example")
	server := header("Authorization", "Bearer "+hsToken, "X-Matrix-Origin", "friend.example")
	for path, c := range map[string]struct {
		header http.Header
		want   string
	}{
		clientV1 + "get_token":                {user, "token @ana:own.example| body"},
		clientNow + "get_token":               {user, "token @ana:own.example| body"},
		serverV1 + "get_token":                {server, "token |friend.example body"},
		serverNow + "get_token":               {server, "token |friend.example body"},
		clientV1 + "delegate_delayed_leave":   {user, "delegate @ana:own.example| body"},
		clientNow + "delegate_delayed_leave":  {user, "delegate @ana:own.example| body"},
		serverNow + "delegate_delayed_leave":  {server, ""},
		clientV1 + "get_token/":               {user, ""},
		clientV1 + "/get_token":               {user, ""},
		clientV1 + "..%2fget_token":           {user, ""},
		clientV1 + "get_token2":               {user, ""},
		"/x" + clientV1 + "get_token":         {user, ""},
		clientV1:                              {user, ""},
		"/_matrix/client/v1/rtc/transports":   {user, ""},
		"/":                                   {user, ""},
		"/_matrix/client/v1/rtc/livekit":      {server, ""},
		clientV1 + "get_token?as=server":      {server, ""}, // another server at the users' route
		serverV1 + "get_token?as=user":        {user, ""},
		clientV1 + "get_token?user_id=@eve:x": {user, "token @ana:own.example| body"},
	} {
		t.Run(path, func(t *testing.T) {
			l := newListener(true)
			status, body := l.ask(t, http.MethodPost, path, c.header, strings.NewReader("body"))
			if c.want != "" {
				require.Equal(t, http.StatusOK, status, body)
				require.Equal(t, []string{c.want}, l.asked)
				return
			}
			require.Equal(t, http.StatusNotFound, status, body)
			require.Empty(t, l.asked)
		})
	}
	status, _ := newListener(true).ask(t, http.MethodGet, clientV1+"get_token", user, nil)
	require.Equal(t, http.StatusMethodNotAllowed, status)
	status, _ = newListener(false).ask(t, http.MethodPost, clientV1+"delegate_delayed_leave", user, nil)
	require.Equal(t, http.StatusNotFound, status, "clients probe for it")
	status, body := newListener(true).ask(t, http.MethodGet, proxied.Probe, user, nil)
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, proxied.ProbeAnswer, body)
}

// unread fails the test when somebody reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// TestWhoIsNotTheHomeserver gets nothing, whatever else they send; and never
// 401, which a client would take for the end of its own session.
func TestWhoIsNotTheHomeserver(t *testing.T) {
	const good, user, origin = "Bearer " + hsToken, "X-Matrix-User-Identifier", "X-Matrix-Origin"
	for name, h := range map[string]http.Header{
		"nothing":            header(user, "@ana:own.example"),
		"another token":      header("Authorization", "Bearer x"+hsToken, user, "@ana:own.example"),
		"the beginning":      header("Authorization", good[:len(good)-1], user, "@ana:own.example"),
		"more":               header("Authorization", good+" ", user, "@ana:own.example"),
		"another scheme":     header("Authorization", "bearer "+hsToken, user, "@ana:own.example"),
		"without scheme":     header("Authorization", hsToken, user, "@ana:own.example"),
		"two tokens":         header("Authorization", good, "Authorization", good, user, "@ana:own.example"),
		"one good, one bad":  header("Authorization", good, "Authorization", "Bearer x", user, "@ana:own.example"),
		"empty":              header("Authorization", "", user, "@ana:own.example"),
		"nobody":             header("Authorization", good),
		"an empty user":      header("Authorization", good, user, ""),
		"two users":          header("Authorization", good, user, "@ana:own.example", user, "@bo:own.example"),
		"the same twice":     header("Authorization", good, user, "@ana:own.example", user, "@ana:own.example"),
		"user and server":    header("Authorization", good, user, "@ana:own.example", origin, "friend.example"),
		"two servers":        header("Authorization", good, origin, "friend.example", origin, "evil.example"),
		"a long name":        header("Authorization", good, user, "@"+strings.Repeat("a", 255)),
		"X-Matrix by itself": header("Authorization", "X-Matrix origin=friend.example", origin, "friend.example"),
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{clientV1 + "get_token", serverV1 + "get_token", clientNow + "delegate_delayed_leave", proxied.Probe, "/nowhere"} {
				l := newListener(true)
				status, body := l.ask(t, http.MethodPost, path, h, unread{t})
				require.Equal(t, http.StatusForbidden, status, body)
				require.NotContains(t, body, hsToken)
				require.Empty(t, l.asked)
			}
		})
	}
}

// TestPing: the homeserver asks it in its own name.
func TestPing(t *testing.T) {
	const path = "/_matrix/app/v1/ping"
	ask := func(method, token string) (int, string) {
		return newListener(true).ask(t, method, path, header("Authorization", "Bearer "+token), strings.NewReader(`{"transaction_id":"t1"}`))
	}
	status, body := ask(http.MethodPost, hsToken)
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, "{}", body)
	status, body = ask(http.MethodPost, "x"+hsToken)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, body, "M_FORBIDDEN")
	status, _ = newListener(true).ask(t, http.MethodPost, path, header(), unread{t})
	require.Equal(t, http.StatusForbidden, status)
	status, _ = ask(http.MethodGet, hsToken)
	require.Equal(t, http.StatusMethodNotAllowed, status)
}

// TestPushedEvents are counted and read by nobody: a homeserver that pushes
// them has another registration than ours.
func TestPushedEvents(t *testing.T) {
	registry := prometheus.NewRegistry()
	l := &listener{Listener: proxied.New(proxied.Options{HSToken: hsToken, Log: zerolog.Nop(), Registerer: registry})}
	for _, path := range []string{"/_matrix/app/v1/transactions/7", "/_matrix/app/v1/users/@ana:own.example", "/_matrix/app/v1/rooms/x"} {
		status, body := l.ask(t, http.MethodPut, path, header("Authorization", "Bearer "+hsToken), unread{t})
		require.Equal(t, http.StatusNotFound, status)
		require.Contains(t, body, "M_UNRECOGNIZED")
		status, _ = l.ask(t, http.MethodPut, path, header("Authorization", "Bearer x"+hsToken), unread{t})
		require.Equal(t, http.StatusForbidden, status)
	}
	families, err := registry.Gather()
	require.NoError(t, err)
	counted := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	require.Equal(t, map[string]float64{"hs_token": 3, "pushed": 3}, counted)
}

func TestAPanicIsAnAnswer(t *testing.T) {
	l := &listener{Listener: proxied.New(proxied.Options{
		HSToken: hsToken, Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
		Token: func(http.ResponseWriter, *http.Request, matrixrtc.Caller) { panic("secret") },
	})}
	status, body := l.ask(t, http.MethodPost, clientV1+"get_token",
		header("Authorization", "Bearer "+hsToken, "X-Matrix-User-Identifier", "@ana:own.example"), nil)
	require.Equal(t, http.StatusBadGateway, status)
	require.NotContains(t, body, "secret")
}

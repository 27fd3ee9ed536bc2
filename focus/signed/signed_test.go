package signed_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
	"passerelle/focus/signed"
)

const getToken = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"

// listener notes what it was asked.
type listener struct {
	*signed.Listener
	failure  error
	wait     map[string]time.Duration
	verified []string
	asked    []string
}

func newListener() *listener {
	l := &listener{}
	l.Listener = signed.New(signed.Options{Verifier: l, Limits: l, Token: func(w http.ResponseWriter, r *http.Request, caller matrixrtc.Caller) {
		body, _ := io.ReadAll(r.Body)
		l.asked = append(l.asked, fmt.Sprintf("%s|%s %s", caller.User, caller.Origin, body))
		_, _ = w.Write([]byte("{}"))
	}})
	return l
}

func (l *listener) Address(address string) time.Duration { return l.wait[address] }

func (l *listener) Verify(_ context.Context, r signed.Request) (string, []byte, error) {
	l.verified = append(l.verified, fmt.Sprintf("%s %s %q %s", r.Method, r.URI, r.Authorization, r.Body))
	return "friend.example", []byte("what was signed"), l.failure
}

func (l *listener) ask(t *testing.T, method, target string, body io.Reader) (int, string) {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, target, body)
	request.RemoteAddr = "192.0.2.1:5000"
	request.Header["Authorization"] = []string{"X-Matrix a", "X-Matrix b"}
	require.True(t, l.Serves(request))
	recorder := httptest.NewRecorder()
	l.ServeHTTP(recorder, request)
	require.True(t, json.Valid(recorder.Body.Bytes()), "%s", recorder.Body)
	return recorder.Code, recorder.Body.String()
}

func TestServes(t *testing.T) {
	for target, want := range map[string]bool{
		getToken: true,
		"/_matrix/federation/v1/rtc/livekit/get_token": true,
		getToken + "?x=1": true, // and part of what is signed
		"/_matrix/federation/v2/rtc/livekit/get_token":      false,
		"/_matrix/federation/v1/rtc/livekit/get_token/":     false,
		"/_matrix/federation/v1/rtc/livekit/%67et_token":    false,
		"/_matrix/federation/v1/rtc//livekit/get_token":     false,
		"/_matrix/federation/v1/x/../rtc/livekit/get_token": false,
		"/x" + getToken: false,
		"/_matrix/client/v1/rtc/livekit/get_token":                      false,
		"/_matrix/federation/v1/rtc/livekit/delegate_delayed_leave":     false,
		"/_matrix/federation/unstable/ioxelement/rtc/livekit/get_token": false,
		"/get_token": false,
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, nil)
		require.Equal(t, want, newListener().Serves(request), target)
	}
}

func TestWhatWasSignedIsPassedOn(t *testing.T) {
	l := newListener()
	status, _ := l.ask(t, http.MethodPost, getToken+"?x=%20", strings.NewReader(" body "))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, []string{`POST ` + getToken + `?x=%20 ["X-Matrix a" "X-Matrix b"]  body `}, l.verified)
	require.Equal(t, []string{"|friend.example what was signed"}, l.asked)
}

// TestRefusals: all of them final to a homeserver, and none says why a
// signature is not good.
func TestRefusals(t *testing.T) {
	broken := errors.New("10.1.2.3: \"refused\"")
	for name, c := range map[string]struct {
		failure error
		wait    map[string]time.Duration
		method  string
		body    io.Reader
		status  int
		code    string
		asks    int
	}{
		"a server without a rule": {signed.ErrNotAllowed, nil, http.MethodPost, strings.NewReader("{}"), 403, "M_FORBIDDEN", 1},
		"no JSON":                 {signed.ErrContent, nil, http.MethodPost, strings.NewReader("{"), 400, "M_NOT_JSON", 1},
		"a bad signature":         {signed.ErrSignature, nil, http.MethodPost, strings.NewReader("{}"), 403, "M_UNAUTHORIZED", 1},
		"whatever else":           {broken, nil, http.MethodPost, strings.NewReader("{}"), 403, "M_UNAUTHORIZED", 1},
		"too many":                {nil, map[string]time.Duration{"192.0.2.1": time.Second}, http.MethodPost, unread{t}, 403, "M_LIMIT_EXCEEDED", 0},
		"too large":               {nil, nil, http.MethodPost, strings.NewReader(strings.Repeat(" ", 32<<10+1)), 413, "M_TOO_LARGE", 0},
		"cut off":                 {nil, nil, http.MethodPost, io.MultiReader(strings.NewReader("{"), cut{}), 400, "M_NOT_JSON", 0},
		"GET":                     {nil, nil, http.MethodGet, unread{t}, 405, "M_UNRECOGNIZED", 0},
		"OPTIONS":                 {nil, nil, http.MethodOptions, unread{t}, 405, "M_UNRECOGNIZED", 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newListener()
			l.failure, l.wait = c.failure, c.wait
			status, body := l.ask(t, c.method, getToken, c.body)
			require.Equal(t, c.status, status, body)
			require.Contains(t, body, `"errcode":"`+c.code+`"`)
			require.NotContains(t, body, "10.1.2.3")
			require.Len(t, l.verified, c.asks)
			require.Empty(t, l.asked)
		})
	}
}

// unread fails the test when somebody reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// cut is a connection that ends.
type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

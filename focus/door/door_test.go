package door_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/focus/door"
)

// sfu stands in for LiveKit: it answers /validate with what it was asked and
// echoes on its WebSockets.
func newSFU(t *testing.T) *url.URL {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://sfu.example")
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprintf(w, "%s %s forwarded=%q real=%q cookie=%q", r.URL.Path, r.URL.RawQuery,
				r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Real-Ip"), r.Header.Get("Cookie"))
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	require.NoError(t, err)
	return address
}

// serve puts a door with the given decision on a listener, under a prefix.
func serve(t *testing.T, admit func(context.Context, string) (*url.URL, error)) (*httptest.Server, *door.Door) {
	t.Helper()
	d := door.New(door.Options{Admit: admit, Log: zerolog.Nop(), Registerer: prometheus.NewRegistry()})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		d.Serve(w, r, strings.TrimPrefix(r.URL.Path, "/prefix"))
	}))
	t.Cleanup(server.Close)
	return server, d
}

func admitGood(sfu *url.URL) func(context.Context, string) (*url.URL, error) {
	return func(_ context.Context, token string) (*url.URL, error) {
		if token != "good" {
			return nil, fmt.Errorf("%w: not good", door.ErrRefused)
		}
		return sfu, nil
	}
}

func TestDoorForwardsSignalling(t *testing.T) {
	server, _ := serve(t, admitGood(newSFU(t)))
	for _, route := range []string{"/rtc", "/rtc/v1"} {
		c, _, err := websocket.Dial(t.Context(), server.URL+"/prefix"+route+"?access_token=good&x=1", nil)
		require.NoError(t, err)
		require.NoError(t, c.Write(t.Context(), websocket.MessageBinary, []byte("offer")))
		_, answer, err := c.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "offer", string(answer))
		require.NoError(t, c.Close(websocket.StatusNormalClosure, ""))
	}
}

func TestDoorForwardsQuestions(t *testing.T) {
	server, _ := serve(t, admitGood(newSFU(t)))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		server.URL+"/prefix/rtc/v1/validate?access_token=good&join_request=a%2Bb", nil)
	require.NoError(t, err)
	request.Header.Set("X-Forwarded-For", "192.0.2.1")
	request.Header.Set("X-Real-IP", "192.0.2.1")
	request.Header.Set("Cookie", "session=1")
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, `/rtc/v1/validate access_token=good&join_request=a%2Bb forwarded="" real="" cookie=""`, string(body))
	require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"))
}

func TestDoorRefuses(t *testing.T) {
	asked := 0
	server, _ := serve(t, func(context.Context, string) (*url.URL, error) {
		asked++
		return nil, fmt.Errorf("%w: not good", door.ErrRefused)
	})
	long := strings.Repeat("x", 9000)
	for name, c := range map[string]struct {
		method, query string
		headers       []string
		status        int
		asks          bool
	}{
		"no token":               {"GET", "", nil, 403, false},
		"empty query token":      {"GET", "?access_token=", nil, 403, true},
		"bad token":              {"GET", "?access_token=bad", nil, 403, true},
		"two in the query":       {"GET", "?access_token=good&access_token=good", nil, 403, false},
		"query and header":       {"GET", "?access_token=good", []string{"Bearer good"}, 403, false},
		"two headers":            {"GET", "", []string{"Bearer good", "Bearer good"}, 403, false},
		"other scheme":           {"GET", "", []string{"Basic good"}, 403, false},
		"semicolon in the query": {"GET", "?access_token=good;access_token=bad", nil, 403, false},
		"broken escape":          {"GET", "?access_token=%zz", nil, 403, false},
		"too long":               {"GET", "?access_token=" + long, nil, 403, false},
		"in the header":          {"GET", "", []string{"Bearer bad"}, 403, true},
		"POST":                   {"POST", "?access_token=good", nil, 405, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, route := range door.Routes {
				asked = 0
				request, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+"/prefix"+route+c.query, nil)
				require.NoError(t, err)
				request.Header["Authorization"] = c.headers
				answer, err := http.DefaultClient.Do(request)
				require.NoError(t, err)
				_ = answer.Body.Close()
				require.Equal(t, c.status, answer.StatusCode, route)
				require.Equal(t, "*", answer.Header.Get("Access-Control-Allow-Origin"), route)
				require.Equal(t, c.asks, asked == 1, route)
			}
		})
	}
}

func TestDoorWithoutSFU(t *testing.T) {
	gone := newSFU(t)
	gone.Host = "127.0.0.1:1"
	for name, admit := range map[string]func(context.Context, string) (*url.URL, error){
		"none ready":    func(context.Context, string) (*url.URL, error) { return nil, errors.New("starting") },
		"not answering": func(context.Context, string) (*url.URL, error) { return gone, nil },
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := serve(t, admit)
			answer, err := http.Get(server.URL + "/prefix/rtc/validate?access_token=good")
			require.NoError(t, err)
			_ = answer.Body.Close()
			require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
			require.Equal(t, "*", answer.Header.Get("Access-Control-Allow-Origin"))
		})
	}
}

func TestConnectionsEndWithTheServer(t *testing.T) {
	sfu := newSFU(t)
	d := door.New(door.Options{Admit: admitGood(sfu), Log: zerolog.Nop(), Registerer: prometheus.NewRegistry()})
	serving, stop := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(serving, cancel)()
		d.Serve(w, r.WithContext(ctx), "/rtc")
	}))
	defer server.Close()
	c, _, err := websocket.Dial(t.Context(), server.URL+"/rtc?access_token=good", nil)
	require.NoError(t, err)
	defer c.CloseNow()
	stop()
	_, _, err = c.Read(t.Context())
	require.Error(t, err)
	wait, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.NoError(t, d.Wait(wait))
}

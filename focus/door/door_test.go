package door_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/focus/door"
	"passerelle/focus/matrixrtc"
)

// sfu stands in for LiveKit: it answers /validate with what it was asked and
// echoes on its WebSockets.
func newSFU(t *testing.T) *url.URL {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://sfu.example")
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprintf(w, "%s %s %s forwarded=%q real=%q cookie=%q", r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"),
				r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Real-Ip"), r.Header.Get("Cookie"))
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
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

type decision func(ctx context.Context, token string) (door.Pass, error)

// serve puts a door with the given decision on a listener, under a prefix. Each
// token is taken for somebody else's: how often one may come is no matter.
func serve(t testing.TB, admit decision) (*httptest.Server, *door.Door) {
	t.Helper()
	var tokens atomic.Int64
	d := door.New(door.Options{
		Verify: func(token string) (matrixrtc.Ticket, error) {
			return matrixrtc.Ticket{Room: matrixrtc.SFURoom(fmt.Sprint(tokens.Add(1))), Identity: matrixrtc.Identity(token)}, nil
		},
		Admit: func(ctx context.Context, ticket matrixrtc.Ticket) (door.Pass, error) {
			return admit(ctx, string(ticket.Identity))
		},
		Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		d.Serve(w, r, strings.TrimPrefix(r.URL.Path, "/prefix"))
	}))
	t.Cleanup(server.Close)
	return server, d
}

func admitGood(sfu *url.URL) decision {
	return func(_ context.Context, token string) (door.Pass, error) {
		if token != "good" {
			return door.Pass{}, fmt.Errorf("%w: not good", door.ErrRefused)
		}
		return door.Pass{Room: "room", Identity: "ana", SFU: sfu, Token: "resigned"}, nil
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
	require.Equal(t, `/rtc/v1/validate join_request=a%2Bb Bearer resigned forwarded="" real="" cookie=""`, string(body))
	require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"))
}

func TestDoorRefuses(t *testing.T) {
	asked := 0
	server, _ := serve(t, func(context.Context, string) (door.Pass, error) {
		asked++
		return door.Pass{}, fmt.Errorf("%w: not good", door.ErrRefused)
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
		"another identity":       {"GET", "?access_token=good&publish=x", nil, 403, false},
		"and an empty one":       {"GET", "?publish&access_token=good", nil, 403, false},
		"POST":                   {"POST", "?access_token=good", nil, 405, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, route := range door.Routes {
				asked = 0
				request, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+"/prefix"+route+c.query, nil)
				require.NoError(t, err)
				request.Header["Authorization"] = c.headers
				request.Header.Set("Connection", "Upgrade")
				request.Header.Set("Upgrade", "websocket")
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
	for name, admit := range map[string]decision{
		"none ready":    func(context.Context, string) (door.Pass, error) { return door.Pass{}, errors.New("starting") },
		"not answering": admitGood(gone),
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

func TestConnectionsEndWithTheDoor(t *testing.T) {
	server, d := serve(t, admitGood(newSFU(t)))
	c := dial(t, server)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- d.Stop(ctx) }()
	_, _, err := c.Read(t.Context())
	require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err), "%v", err)
	require.NoError(t, <-stopped)
	answer, err := http.Get(server.URL + "/rtc/validate?access_token=good")
	require.NoError(t, err)
	_ = answer.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode, "nobody comes in any more")
}

// A client that reads nothing holds up neither the end of the service nor that
// of its own connection.
func TestWhoReadsNothingHoldsNobodyUp(t *testing.T) {
	for name, end := range map[string]func(*door.Door){
		"stop": func(*door.Door) {},
		"cut":  func(d *door.Door) { d.Cut("room", "ana") },
	} {
		t.Run(name, func(t *testing.T) {
			full := make(chan struct{})
			sfu := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := websocket.Accept(w, r, nil)
				if err != nil {
					return
				}
				defer c.CloseNow()
				for err == nil {
					moment, cancel := context.WithTimeout(r.Context(), 500*time.Millisecond)
					err = c.Write(moment, websocket.MessageBinary, make([]byte, 64<<10))
					cancel()
				}
				close(full) // nobody takes anything any more
			}))
			defer sfu.Close()
			address, err := url.Parse(sfu.URL)
			require.NoError(t, err)
			server, d := serve(t, admitGood(address))
			c, _, err := websocket.Dial(t.Context(), server.URL+"/rtc?access_token=good", nil)
			require.NoError(t, err)
			defer c.CloseNow()
			<-full
			end(d)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			require.NoError(t, d.Stop(over))
		})
	}
}

// dial connects with a good token, and says a word to be sure.
func dial(t *testing.T, server *httptest.Server) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), server.URL+"/rtc?access_token=good", nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(64 << 20)
	require.NoError(t, c.Write(t.Context(), websocket.MessageBinary, []byte("hello")))
	_, answer, err := c.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, "hello", string(answer))
	return c
}

func TestMessagesOfAnySizeButTooBig(t *testing.T) {
	server, d := serve(t, admitGood(newSFU(t)))
	c := dial(t, server)
	for _, size := range []int{0, 1, 125, 126, 2047, 2048, 2049, 65535, 65536, 1 << 20, 2 << 20} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		go func() { _ = c.Write(t.Context(), websocket.MessageBinary, sent) }()
		_, got, err := c.Read(t.Context())
		require.NoError(t, err, size)
		require.True(t, bytes.Equal(sent, got), size)
	}
	go func() { _ = c.Write(t.Context(), websocket.MessageBinary, make([]byte, 2<<20+1)) }()
	_, _, err := c.Read(t.Context())
	require.Equal(t, websocket.StatusMessageTooBig, websocket.CloseStatus(err), "%v", err)
	waitEmpty(t, d)
}

func TestAMessageInManyPiecesIsOneMessage(t *testing.T) {
	server, _ := serve(t, admitGood(newSFU(t)))
	c := dial(t, server)
	w, err := c.Writer(t.Context(), websocket.MessageBinary)
	require.NoError(t, err)
	go func() {
		for range 80 {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
		_ = w.Close()
	}()
	_, _, err = c.Read(t.Context())
	require.Equal(t, websocket.StatusMessageTooBig, websocket.CloseStatus(err), "%v", err)
}

// A revocation reaches those who are connected, those who are being connected
// and those about whom was decided before it.
func TestCut(t *testing.T) {
	t.Run("connected", func(t *testing.T) {
		server, d := serve(t, admitGood(newSFU(t)))
		c := dial(t, server)
		d.Cut("room", "bo")
		d.Cut("other", "ana")
		ended := make(chan error, 1)
		go func() {
			_, _, err := c.Read(t.Context())
			ended <- err
		}()
		require.NoError(t, c.Ping(t.Context()), "others are not meant")
		began := time.Now()
		d.Cut("room", "ana")
		require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(<-ended))
		require.Less(t, time.Since(began), time.Second)
		waitEmpty(t, d)
	})
	t.Run("a slow goodbye", func(t *testing.T) {
		cut := make(chan struct{})
		sfu := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			<-cut
			time.Sleep(200 * time.Millisecond) // as on a busy machine
			_ = c.Write(r.Context(), websocket.MessageText, []byte("goodbye"))
		}))
		defer sfu.Close()
		address, err := url.Parse(sfu.URL)
		require.NoError(t, err)
		server, d := serve(t, admitGood(address))
		c, _, err := websocket.Dial(t.Context(), server.URL+"/rtc?access_token=good", nil)
		require.NoError(t, err)
		defer c.CloseNow()
		d.Cut("room", "ana")
		close(cut)
		_, last, err := c.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "goodbye", string(last))
		_, _, err = c.Read(t.Context())
		require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err))
		waitEmpty(t, d)
	})
	t.Run("being connected", func(t *testing.T) {
		asked := make(chan struct{})
		sfu := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
		}))
		defer sfu.Close()
		address, err := url.Parse(sfu.URL)
		require.NoError(t, err)
		server, d := serve(t, admitGood(address))
		go func() { <-asked; d.Cut("room", "ana") }()
		_, answer, err := websocket.Dial(t.Context(), server.URL+"/rtc?access_token=good", nil)
		require.Error(t, err)
		require.Equal(t, http.StatusForbidden, answer.StatusCode)
		require.Equal(t, "*", answer.Header.Get("Access-Control-Allow-Origin"))
	})
	t.Run("decided before", func(t *testing.T) {
		sfu, revoked := newSFU(t), false
		var d *door.Door
		var server *httptest.Server
		server, d = serve(t, func(ctx context.Context, token string) (door.Pass, error) {
			if revoked {
				return door.Pass{}, door.ErrRefused
			}
			// Between this decision and what it opens, it is revoked.
			revoked = true
			d.Cut("room", "ana")
			return admitGood(sfu)(ctx, token)
		})
		_, answer, err := websocket.Dial(t.Context(), server.URL+"/rtc?access_token=good", nil)
		require.Error(t, err)
		require.Equal(t, http.StatusForbidden, answer.StatusCode)
	})
}

// waitEmpty returns when nobody is connected any more.
func waitEmpty(t *testing.T, d *door.Door) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.NoError(t, d.Stop(ctx))
	require.NoError(t, ctx.Err(), "somebody was still connected")
}

func TestWhatIsNoWebSocketIsToldSo(t *testing.T) {
	server, _ := serve(t, admitGood(newSFU(t)))
	answer, err := http.Get(server.URL + "/rtc/v1?access_token=good")
	require.NoError(t, err)
	_ = answer.Body.Close()
	require.Equal(t, http.StatusUpgradeRequired, answer.StatusCode)
}

// Package door stands in front of every SFU: the one public address of
// Passerelle carries LiveKit's signalling too, and nothing of it reaches an SFU
// before the door has looked at the token. Media never passes here; it goes
// straight between client and SFU.
//
// The routes it forwards are those of [Routes] and no others: LiveKit's room
// service (/twirp), /whip and /agent stay unreachable from outside.
package door

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Routes are the paths, below the public address, that the door serves, with
// LiveKit's own names. The first two are WebSockets; the other two tell a
// client why its WebSocket was refused.
var Routes = []string{"/rtc", "/rtc/v1", "/rtc/validate", "/rtc/v1/validate"}

// admitWait is how long a client waits for an SFU that is just being
// restarted, before it is told to come back.
const admitWait = 5 * time.Second

// maxToken bounds a token. Ours are below 600 bytes, LiveKit's refreshed ones
// below 1.5 KiB.
const maxToken = 8 << 10

// ErrRefused is what Admit wraps when the holder of a token may not pass,
// now and with this token: the client is told not to try again.
var ErrRefused = errors.New("not admitted")

// Options are what a Door needs; all fields are required.
type Options struct {
	// Admit decides whether the holder of the token may pass, and names the
	// SFU to pass on to, http or https, which is ready for the token's room.
	// It may wait, within ctx, for an SFU that is being restarted. Errors that
	// are not [ErrRefused] mean that no SFU can be had just now. Their text is
	// logged, so it must not hold the token.
	Admit      func(ctx context.Context, token string) (*url.URL, error)
	Log        zerolog.Logger
	Registerer prometheus.Registerer
}

// Door forwards admitted signalling. It is safe for concurrent use.
type Door struct {
	options Options
	proxy   *httputil.ReverseProxy
	metrics metrics
	open    sync.WaitGroup
}

// New returns a Door.
func New(o Options) *Door {
	d := &Door{options: o, metrics: newMetrics(o.Registerer)}
	transport := &http.Transport{
		// No proxy from the environment: the SFU is ours.
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: 10 * time.Second,
		DisableCompression:    true,
	}
	d.proxy = &httputil.ReverseProxy{
		Transport:      transport,
		Rewrite:        rewrite,
		ModifyResponse: cleanResponse,
		ErrorHandler:   d.upstreamFailed,
		// The proxy's own lines may hold URLs, and those the token.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	return d
}

type upstreamKey struct{}

type target struct {
	base  *url.URL
	route string
}

// Serve answers a request for one of [Routes]. The caller has set the CORS
// headers. It returns when the signalling connection has ended, which the end
// of the request's context brings about too.
func (d *Door) Serve(w http.ResponseWriter, r *http.Request, route string) {
	d.open.Add(1)
	defer d.open.Done()
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET, OPTIONS")
		d.refuse(w, http.StatusMethodNotAllowed, "method", "only GET is served here")
		return
	}
	token, reason := onlyToken(r)
	if reason != "" {
		d.refuse(w, http.StatusForbidden, "token_count", reason)
		return
	}
	wait, cancel := context.WithTimeout(r.Context(), admitWait)
	base, err := d.options.Admit(wait, token)
	cancel()
	switch {
	case errors.Is(err, ErrRefused):
		d.options.Log.Debug().Err(err).Msg("Signalling refused")
		d.refuse(w, http.StatusForbidden, "not_admitted", "this token does not admit to the call")
		return
	case err != nil:
		d.options.Log.Warn().Err(err).Msg("No SFU to connect a client to")
		d.refuse(w, http.StatusServiceUnavailable, "no_sfu", "the media server is not available")
		return
	}
	d.metrics.admitted.Inc()
	d.metrics.sockets.Inc()
	defer d.metrics.sockets.Dec()
	ctx := context.WithValue(r.Context(), upstreamKey{}, target{base, route})
	d.proxy.ServeHTTP(w, r.WithContext(ctx))
}

// Wait returns when every connection has ended or ctx is done. Call it after
// the contexts of the requests are cancelled.
func (d *Door) Wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() { d.open.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errors.New("signalling connections still open")
	}
}

// onlyToken returns the request's one token. Two tokens, in whichever places,
// are refused: what the door looked at and what the SFU believed could differ.
func onlyToken(r *http.Request) (token, reason string) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", "the query is malformed"
	}
	tokens := query["access_token"]
	for _, header := range r.Header.Values("Authorization") {
		bearer, ok := strings.CutPrefix(header, "Bearer ")
		if !ok {
			return "", "the Authorization header must start with Bearer"
		}
		tokens = append(tokens, bearer)
	}
	switch {
	case len(tokens) == 0:
		return "", "a token is needed"
	case len(tokens) > 1:
		return "", "there must be one token only"
	case len(tokens[0]) > maxToken:
		return "", "the token is too long"
	}
	return tokens[0], ""
}

// rewrite makes the request that the SFU sees: LiveKit's own path whatever
// prefix ours has, the same query, and no header by which a client could pose
// as a proxy.
func rewrite(p *httputil.ProxyRequest) {
	to := p.In.Context().Value(upstreamKey{}).(target)
	p.Out.URL.Scheme = to.base.Scheme
	p.Out.URL.Host = to.base.Host
	p.Out.URL.Path = strings.TrimSuffix(to.base.Path, "/") + to.route
	p.Out.URL.RawPath = ""
	// ReverseProxy has dropped parameters that it could not parse.
	p.Out.Host = to.base.Host
	for _, name := range []string{"X-Real-Ip", "Cookie", "Cf-Connecting-Ip", "True-Client-Ip"} {
		p.Out.Header.Del(name)
	}
}

// cleanResponse drops LiveKit's CORS headers: the public listener sets its own,
// and two values for one of them are as bad as none.
func cleanResponse(r *http.Response) error {
	for name := range r.Header {
		if strings.HasPrefix(name, "Access-Control-") {
			r.Header.Del(name)
		}
	}
	return nil
}

func (d *Door) upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil {
		d.options.Log.Warn().Str("cause", safeCause(err)).Msg("The SFU did not take a signalling connection")
	}
	d.refuse(w, http.StatusServiceUnavailable, "upstream", "the media server is not available")
}

// safeCause drops the URL, and with it the token, from an error of net/http.
func safeCause(err error) string {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return err.Error()
}

func (d *Door) refuse(w http.ResponseWriter, status int, reason, text string) {
	d.metrics.refused.WithLabelValues(reason).Inc()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

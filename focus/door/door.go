// Package door stands in front of every SFU: the one public address of
// Passerelle carries LiveKit's signalling too, and nothing of it reaches an SFU
// before the door has looked at the token. Media never passes here; it goes
// straight between client and SFU.
//
// The routes it forwards are those of [Routes] and no others: LiveKit's room
// service (/twirp), /whip and /agent stay unreachable from outside. What the
// SFU sees is a request of ours, with a token of ours: of the client's own it
// gets the parameters and nothing else that counts.
package door

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/focus/matrixrtc"
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

var (
	// ErrRefused is what Admit wraps when the holder of a token may not pass,
	// now and with this token: the client is told not to try again (403).
	ErrRefused = errors.New("not admitted")
	// ErrNoRoom is what Admit wraps when the holder may join the call but not
	// start it, and it does not run.
	ErrNoRoom = errors.New("no such call")
	// ErrFull is what Admit wraps when as many are in the call as may be.
	ErrFull = errors.New("full")
)

// noRoom is LiveKit's own text. With 404 it is what its clients know: they stop,
// and Element Call says that the call cannot be started from here. With any
// other text they would take 404 for an old server and try the older route.
const noRoom = "requested room does not exist"

// full goes with 429: LiveKit's clients give up on it, as they do on each 4xx, and
// Element Call says that there is no more room. What LiveKit itself does with
// one too many looks like a connection that broke.
const full = "the call is full"

const notAdmitted = "this token does not admit to the call"

// Pass is what a token is worth.
type Pass struct {
	Room     matrixrtc.SFURoom
	Identity matrixrtc.Identity
	// SFU is where to pass on to, http or https. It is ready for the room.
	SFU *url.URL
	// Token is the one that the SFU gets.
	Token string
}

// Options are what a Door needs; all fields are required.
type Options struct {
	// Verify reads a token that is genuine, and asks nobody. Its errors are
	// [ErrRefused]; their text is logged, so it must not hold the token.
	Verify func(token string) (matrixrtc.Ticket, error)
	// Admit decides whether the holder of the ticket may pass. It may wait,
	// within ctx, for an SFU that is being restarted. Errors that are none of
	// [ErrRefused], [ErrNoRoom] and [ErrFull] mean that no SFU can be had just now. Their
	// text is logged, too.
	Admit      func(ctx context.Context, ticket matrixrtc.Ticket) (Pass, error)
	Log        zerolog.Logger
	Registerer prometheus.Registerer
}

// Door forwards admitted signalling. It is safe for concurrent use.
type Door struct {
	options     Options
	questions   *http.Transport
	connections connections
	attempts    *attempts
	metrics     metrics
}

// New returns a Door.
func New(o Options) *Door {
	d := &Door{options: o, attempts: newAttempts(), metrics: newMetrics(o.Registerer), questions: &http.Transport{
		// No proxy from the environment: the SFU is ours.
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: handshakeTimeout,
		DisableCompression:    true,
	}}
	d.connections.open = map[who]map[*connection]struct{}{}
	return d
}

// Serve answers a request for one of [Routes]. The caller has set the CORS
// headers. A connection that it has let in goes on after it returns, until one
// side ends it, [Door.Cut] or [Door.Stop].
func (d *Door) Serve(w http.ResponseWriter, r *http.Request, route string) {
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
	if r.URL.Query().Has("publish") {
		// LiveKit would add it to the identity, to one that has no grant.
		d.refuse(w, http.StatusForbidden, "publish", "the parameter publish is not served here")
		return
	}
	question := strings.HasSuffix(route, "/validate")
	if !question && !isUpgrade(r) {
		// Not 404, which LiveKit answers: clients would look for an older route.
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		d.refuse(w, http.StatusUpgradeRequired, "no_upgrade",
			"this is a WebSocket; does a proxy in between drop the Upgrade header?")
		return
	}
	pass, c := d.admit(w, r, token)
	if c == nil {
		return
	}
	defer c.settle()
	d.metrics.admitted.Inc()
	if question {
		d.ask(w, r, c, pass, route)
		return
	}
	d.connect(w, r, c, pass, route)
}

// admit asks for the decision and registers what was let in, so that a
// revocation finds it. When one came in between, it is asked again. Without a
// connection the request is answered.
func (d *Door) admit(w http.ResponseWriter, r *http.Request, token string) (Pass, *connection) {
	ticket, err := d.options.Verify(token)
	if err != nil {
		d.notAdmitted(w, err)
		return Pass{}, nil
	}
	if wait := d.attempts.take(ticket, time.Now()); wait > 0 {
		d.tooOften(w, wait)
		return Pass{}, nil
	}
	for {
		before := d.connections.revocations()
		wait, cancel := context.WithTimeout(r.Context(), admitWait)
		pass, err := d.options.Admit(wait, ticket)
		cancel()
		if err != nil {
			d.notAdmitted(w, err)
			return pass, nil
		}
		c, outcome := d.enter(r.Context(), who{pass.Room, pass.Identity}, before)
		switch outcome {
		case entered:
			return pass, c
		case stopping:
			d.refuse(w, http.StatusServiceUnavailable, "stopping", "the service is being stopped")
			return pass, nil
		}
	}
}

func (d *Door) notAdmitted(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, ErrRefused):
		d.options.Log.Debug().Err(err).Msg("Signalling refused")
		d.refuse(w, http.StatusForbidden, "not_admitted", notAdmitted)
	case errors.Is(err, ErrNoRoom):
		d.options.Log.Debug().Err(err).Msg("Signalling refused")
		d.refuse(w, http.StatusNotFound, "no_room", noRoom)
	case errors.Is(err, ErrFull):
		d.options.Log.Debug().Err(err).Msg("Signalling refused")
		d.refuse(w, http.StatusTooManyRequests, "full", full)
	default:
		d.options.Log.Warn().Err(err).Msg("No SFU to connect a client to")
		d.refuse(w, http.StatusServiceUnavailable, "no_sfu", "the media server is not available")
	}
}

// onlyToken returns the request's one token. Two tokens, in whichever places,
// are refused: one of them is not what it seems.
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

func (d *Door) refuse(w http.ResponseWriter, status int, reason, text string) {
	d.metrics.refused.WithLabelValues(reason).Inc()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// Package proxied is where our own homeserver hands over what it was asked for
// calls: by its users, and by other homeservers (MSC4195 over MSC4512). It
// believes the homeserver because of the hs_token, and nobody else.
package proxied

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

const (
	// The homeserver removes both from what it was sent, and sets one.
	userHeader   = "X-Matrix-User-Identifier"
	originHeader = "X-Matrix-Origin"
	// maxName bounds both: the longest user ID and server name of Matrix.
	maxName = 255
)

// Probe is a route that answers who is here, to a user for whom the homeserver
// vouches: `passerelle check` asks for it through the homeserver.
const Probe = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/passerelle"

// ProbeAnswer is the answer.
const ProbeAnswer = `{"passerelle":true}`

// route is what can be asked for.
type route struct{ token, federation bool }

// routes are the paths of what can be asked for, in the proposal's stable and
// unstable versions (MSC4195). Whatever else the homeserver passes on is answered
// as unknown.
var routes = func() map[string]route {
	of := map[string]route{}
	for _, version := range []string{"v1", "unstable/io.element.msc4195"} {
		of["/_matrix/client/"+version+"/rtc/livekit/get_token"] = route{token: true}
		of["/_matrix/client/"+version+"/rtc/livekit/delegate_delayed_leave"] = route{}
		of["/_matrix/federation/"+version+"/rtc/livekit/get_token"] = route{token: true, federation: true}
	}
	return of
}()

const (
	// ping is asked by the homeserver itself (application service API,
	// "Pinging"), with {transaction_id}; there is nothing in it to answer to.
	ping = "/_matrix/app/v1/ping"
	// pushed begins all else that a homeserver asks by itself (application
	// service API): events above all, which our registration has it push nowhere.
	pushed = "/_matrix/app/"
)

// Handler answers a request of a caller for whom the homeserver vouches. The
// answer is a JSON object, and its status is not 401.
type Handler func(w http.ResponseWriter, r *http.Request, caller matrixrtc.Caller)

// Options are what a Listener needs.
type Options struct {
	// HSToken is the hs_token of our registration. Required.
	HSToken string
	// Token answers get_token. Required.
	Token Handler
	// Delegate answers delegate_delayed_leave; nil where that is not offered.
	Delegate   Handler
	Log        zerolog.Logger
	Registerer prometheus.Registerer
}

// Listener is the handler of the proxied listener.
type Listener struct {
	bearer          [sha256.Size]byte
	token, delegate Handler
	log             zerolog.Logger
	refused         *prometheus.CounterVec
	warned          atomic.Int64 // when, in milliseconds since 1970
}

// New returns a Listener.
func New(o Options) *Listener {
	return &Listener{
		bearer: sha256.Sum256([]byte("Bearer " + o.HSToken)),
		token:  o.Token, delegate: o.Delegate, log: o.Log,
		refused: promauto.With(o.Registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_proxied_refused_total",
			Help: "Requests on the homeserver's listener that were refused before they were read, by reason.",
		}, []string{"reason"}),
	}
}

// ServeHTTP implements [http.Handler]. The token is looked at before anything
// else is. No CORS headers are set: the homeserver sets its own.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer l.recovered(w)
	if !l.trusts(r) {
		l.refused.WithLabelValues("hs_token").Inc()
		l.warn("A request without the hs_token came to homeserver.listen: is it in the homeserver's registration, and does nobody else reach that port?")
		answer(w, http.StatusForbidden, "M_FORBIDDEN", "this is for the homeserver alone")
		return
	}
	if r.URL.Path == ping {
		if r.Method != http.MethodPost {
			refuseMethod(w)
			return
		}
		answerWith(w, http.StatusOK, "{}")
		return
	}
	if strings.HasPrefix(r.URL.Path, pushed) {
		l.refused.WithLabelValues("pushed").Inc()
		l.warn("The homeserver pushes events to homeserver.listen, which nobody reads: in the registration, url must be null")
		answer(w, http.StatusNotFound, "M_UNRECOGNIZED", "no such route")
		return
	}
	caller, ok := callerOf(r)
	if !ok {
		l.refused.WithLabelValues("caller").Inc()
		answer(w, http.StatusForbidden, "M_FORBIDDEN", "the homeserver does not say who asks")
		return
	}
	if r.URL.Path == Probe && caller.User != "" && r.Method == http.MethodGet {
		answerWith(w, http.StatusOK, ProbeAnswer)
		return
	}
	asked, known := routes[r.URL.Path]
	switch {
	case !known, asked.federation != (caller.Origin != ""), !asked.token && l.delegate == nil:
		answer(w, http.StatusNotFound, "M_UNRECOGNIZED", "no such route")
	case r.Method != http.MethodPost:
		refuseMethod(w)
	case asked.token:
		l.token(w, r, caller)
	default:
		l.delegate(w, r, caller)
	}
}

// trusts tells whether the request has the homeserver's token, once. Hashes are
// compared, in constant time, so that time tells neither letters nor length.
func (l *Listener) trusts(r *http.Request) bool {
	given := r.Header.Values("Authorization")
	if len(given) != 1 {
		return false
	}
	hash := sha256.Sum256([]byte(given[0]))
	return subtle.ConstantTimeCompare(hash[:], l.bearer[:]) == 1
}

// warn says it at most once a minute: strangers must not fill the log.
func (l *Listener) warn(text string) {
	now, last := time.Now().UnixMilli(), l.warned.Load()
	if now-last >= time.Minute.Milliseconds() && l.warned.CompareAndSwap(last, now) {
		l.log.Warn().Msg(text)
	}
}

// callerOf is for whom the homeserver vouches: exactly one name in exactly one
// header.
func callerOf(r *http.Request) (matrixrtc.Caller, bool) {
	users, origins := r.Header.Values(userHeader), r.Header.Values(originHeader)
	if len(users)+len(origins) != 1 {
		return matrixrtc.Caller{}, false
	}
	var caller matrixrtc.Caller
	if len(users) == 1 {
		caller.User = id.UserID(users[0])
	} else {
		caller.Origin = origins[0]
	}
	name := len(caller.User) + len(caller.Origin)
	return caller, name > 0 && name <= maxName
}

// recovered turns a panic into an answer. Its value may hold a request's data
// and is not logged.
func (l *Listener) recovered(w http.ResponseWriter) {
	switch recover() {
	case nil:
	case http.ErrAbortHandler:
		panic(http.ErrAbortHandler)
	default:
		l.log.Error().Bytes("stack", debug.Stack()).Msg("A request handler panicked")
		answer(w, http.StatusBadGateway, "M_UNKNOWN", "the service failed")
	}
}

func refuseMethod(w http.ResponseWriter) {
	w.Header().Set("Allow", "POST")
	answer(w, http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "write POST")
}

// answer is a Matrix error. mautrix' own would set CORS headers.
func answer(w http.ResponseWriter, status int, code, text string) {
	answerWith(w, status, `{"errcode":"`+code+`","error":"`+text+`"}`)
}

func answerWith(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

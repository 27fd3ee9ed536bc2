// Package signed is where other homeservers ask us themselves for what their
// users want in our calls (MSC4195, the federation API), beside a homeserver of
// our own that does not hand such requests over (MSC4512). It believes them
// because of their signatures.
package signed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"time"

	"passerelle/focus/matrixrtc"
)

// maxBody bounds a request, in bytes. It is read before anything of it is
// believed; those of homeservers have some hundred bytes.
const maxBody = 32 << 10

// route is the one thing that can be asked for.
var route = regexp.MustCompile(`^/_matrix/federation/(?:v1|unstable/io\.element\.msc4195)/rtc/livekit/get_token$`)

var (
	// ErrNotAllowed is returned by a [Verifier] for a server that may do
	// nothing here.
	ErrNotAllowed = errors.New("users of this server may not join calls here")
	// ErrContent is returned for a body that is not JSON as it is signed.
	ErrContent = errors.New("the request is not a JSON object")
	// ErrSignature is returned for a request that nobody who is known has signed
	// for us. What is wrong with it stands in the log.
	ErrSignature = errors.New("the signature of the request (X-Matrix) could not be verified")
)

// Request is what a signature is held against.
type Request struct {
	// Authorization are all headers of that name.
	Authorization []string
	Method        string
	// URI is path and query, as they came.
	URI  string
	Body []byte
}

// Verifier proves who has signed a request. It returns the server's name and
// what is to be read as the body. Errors are [ErrNotAllowed], [ErrContent] and
// [ErrSignature].
type Verifier interface {
	Verify(ctx context.Context, r Request) (origin string, content []byte, err error)
}

// Limits bounds how often may be asked; see focus.Limits.
type Limits interface {
	Address(address string) time.Duration
}

// Options are what a Listener needs. All are required.
type Options struct {
	Verifier Verifier
	Limits   Limits
	// Token answers get_token of a caller that has an Origin.
	Token func(w http.ResponseWriter, r *http.Request, caller matrixrtc.Caller)
}

// Listener answers what other homeservers ask.
type Listener struct{ Options }

// New returns a Listener.
func New(o Options) *Listener { return &Listener{o} }

// Serves tells whether the request is for this listener. Its path is compared as
// it came: that is what was signed.
func (l *Listener) Serves(r *http.Request) bool { return route.MatchString(r.URL.EscapedPath()) }

// ServeHTTP implements [http.Handler] for the requests that it Serves.
//
// What is final is 403 or 400, never 429 or 5xx: the homeserver that asks would
// ask four times. One without a good signature is 403, too, with M_UNAUTHORIZED,
// which is not passed on to clients as if they themselves were refused.
//
//	400 M_NOT_JSON       not a JSON object, or nested deeply
//	403 M_UNAUTHORIZED   no signature, or not a good one
//	403 M_FORBIDDEN      the policy does not let the server join
//	403 M_LIMIT_EXCEEDED too many requests from the address
//	405 M_UNRECOGNIZED   not POST
//	413 M_TOO_LARGE      more than 32 KiB
//
// All else is Token's answer.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		answer(w, http.StatusMethodNotAllowed, "M_UNRECOGNIZED", "write POST")
		return
	}
	if l.Limits.Address(address(r)) > 0 {
		answer(w, http.StatusForbidden, "M_LIMIT_EXCEEDED", "too many requests; come back later")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		answer(w, http.StatusRequestEntityTooLarge, "M_TOO_LARGE", "the request is too large")
		return
	} else if err != nil {
		answer(w, http.StatusBadRequest, "M_NOT_JSON", "the request could not be read")
		return
	}
	origin, content, err := l.Verifier.Verify(r.Context(), Request{
		Authorization: r.Header.Values("Authorization"), Method: r.Method, URI: r.RequestURI, Body: body,
	})
	switch {
	case errors.Is(err, ErrNotAllowed):
		answer(w, http.StatusForbidden, "M_FORBIDDEN", ErrNotAllowed.Error())
	case errors.Is(err, ErrContent):
		answer(w, http.StatusBadRequest, "M_NOT_JSON", ErrContent.Error())
	case err != nil:
		answer(w, http.StatusForbidden, "M_UNAUTHORIZED", ErrSignature.Error())
	default:
		r.Body = io.NopCloser(bytes.NewReader(content))
		l.Token(w, r, matrixrtc.Caller{Origin: origin})
	}
}

// address is the sender's, without its port.
func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// answer is a Matrix error.
func answer(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"errcode":"` + code + `","error":"` + text + `"}`))
}

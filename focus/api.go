package focus

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
)

// maxBody bounds a token request. Those of shipped clients are below 2 KiB, and
// reading one of this size costs some ten times as much.
const maxBody = 32 << 10

// Routes are the paths, below the public address, that a Service answers.
var Routes = []string{"/sfu/get", "/get_token", "/delegate_delayed_leave"}

// tokenAnswer is the body of a granted request (MSC4195; shipped clients).
type tokenAnswer struct {
	URL string `json:"url"`
	JWT string `json:"jwt"`
}

// Serve answers a request for one of [Routes]. The caller has set the CORS
// headers and answered preflights. Errors are Matrix errors.
//
//	200 {url, jwt}     the token; {} when only a leave was handed over
//	400 M_NOT_JSON     not JSON, or a field of the wrong type
//	400 M_BAD_JSON     a field is missing, empty or impossible
//	401 M_UNAUTHORIZED the OpenID token is not that of the claimed user
//	403 M_FORBIDDEN    the policy does not let this server's users join
//	404 M_UNRECOGNIZED leaves are not taken over here (clients probe for it)
//	405                not POST; no body
//	413 M_TOO_LARGE    more than 32 KiB
//	429 M_LIMIT_EXCEEDED {retry_after_ms}, and the header Retry-After
//	500 M_UNKNOWN      the SFU or the database is not available
//	503 M_UNKNOWN      the service is stopping
func (s *Service) Serve(w http.ResponseWriter, r *http.Request, path string) {
	if path == "/delegate_delayed_leave" && !s.delegates() {
		writeError(w, mautrix.MUnrecognized.WithMessage("delayed leaves are not taken over here"))
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST, OPTIONS")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	started := time.Now()
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	read, way := decodeStandalone, routeStandalone
	switch path {
	case "/sfu/get":
		read, way = decodeLegacy, routeLegacy
	case "/delegate_delayed_leave":
		read, way = decodeDelegate, routeDelegate
	}
	var request *tokenRequest
	var token string
	err := limited(s.limits.Address(clientAddress(r)))
	if err == nil {
		request, err = read(r.Body)
	}
	if err == nil {
		token, err = s.authorise(r.Context(), request)
	}
	s.metrics.answered(way, err, time.Since(started))
	if err != nil {
		writeError(w, s.publicError(err))
		return
	}
	if way == routeDelegate {
		writeJSON(w, http.StatusOK, struct{}{})
		return
	}
	writeJSON(w, http.StatusOK, tokenAnswer{URL: s.sfuURL, JWT: token})
}

// publicError is the one place where an error becomes what a stranger may
// know. What it does not know is our fault and logged.
func (s *Service) publicError(err error) error {
	if _, ok := errors.AsType[limitError](err); ok {
		return err
	}
	if known, ok := errors.AsType[mautrix.RespError](err); ok {
		return known
	}
	if errors.Is(err, context.Canceled) {
		s.log.Debug().Msg("The client did not wait for its token")
	} else {
		s.log.Err(err).Msg("Token request failed")
	}
	return mautrix.MUnknown.WithMessage("the service is not available; try again")
}

// clientAddress is the client's address without its port.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// limitError says when to come back.
type limitError struct{ wait time.Duration }

func (e limitError) Error() string { return "too many requests" }

// limited is nil when there is nothing to wait for.
func limited(wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	return limitError{wait}
}

func writeError(w http.ResponseWriter, err error) {
	body := struct {
		Code         string `json:"errcode"`
		Error        string `json:"error"`
		RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	}{Code: "M_LIMIT_EXCEEDED", Error: "too many requests; come back later"}
	status := http.StatusTooManyRequests
	if limit, ok := errors.AsType[limitError](err); ok {
		body.RetryAfterMS = max(1, limit.wait.Milliseconds())
		w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(limit.wait.Seconds())), 10))
	} else if known, ok := errors.AsType[mautrix.RespError](err); ok {
		status, body.Code, body.Error = known.StatusCode, known.ErrCode, known.Err
	}
	writeJSON(w, status, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		// Only structs of strings come here.
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(encoded)
}

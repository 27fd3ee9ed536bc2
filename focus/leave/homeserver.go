package leave

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.mau.fi/util/retryafter"
	"maunium.net/go/mautrix"
)

// delayedEvents is the base of MSC4140's management calls, as homeservers have
// them.
const delayedEvents = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/"

// action is what a homeserver is asked to do with a delayed event.
type action string

const (
	restart action = "restart"
	send    action = "send"
	cancel  action = "cancel"
)

// verdict is what became of one call.
type verdict int

const (
	// accepted: it was done.
	accepted verdict = iota
	// missing: there is no such delayed event (any more).
	missing
	// refused: it will not be done, however often it is asked.
	refused
	// unauthorised: the token that was shown is not good.
	unauthorised
	// failing: this call failed, and others may not.
	failing
	// unreachable: the server is not there, or asks to be left alone.
	unreachable
)

// String is the verdict as metrics name it.
func (v verdict) String() string {
	return [...]string{"done", "not_found", "refused", "unauthorised", "failed", "unreachable"}[v]
}

// answer is a verdict, and for how long the server wants to be left alone.
type answer struct {
	verdict
	after time.Duration
}

const (
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 64 << 10
	// maxAfter bounds for how long a homeserver can send us away, and maxDown for
	// how long who says that it is down: pages for maintenance name hours where it
	// is minutes, and leaves that are not put off meanwhile are sent.
	maxAfter, maxDown = time.Hour, time.Minute
)

// call asks the homeserver once. It returns no error: one could hold the
// address, and the delay ID in it.
func (a API) call(ctx context.Context, what action, delayID string) answer {
	address := strings.TrimSuffix(a.URL.String(), "/") + delayedEvents + url.PathEscape(delayID) + "/" + string(what)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader("{}"))
	if err != nil {
		return answer{verdict: failing}
	}
	request.Header.Set("Content-Type", "application/json")
	status, header, body, err := a.do(request)
	switch {
	case err != nil:
		return answer{verdict: unreachable}
	case status >= 200 && status < 300:
		return answer{verdict: accepted}
	case status >= 400 && status < 500 && !isOwn(body):
		return answer{verdict: failing}
	case status == http.StatusNotFound:
		return answer{verdict: missing}
	case status == http.StatusUnauthorized && a.Token != "":
		return answer{verdict: unauthorised}
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusConflict:
		return answer{verdict: refused}
	case status == http.StatusTooManyRequests:
		return answer{unreachable, retryAfter(header, body)}
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		return answer{unreachable, min(retryAfter(header, nil), maxDown)}
	}
	return answer{verdict: failing}
}

// isOwn tells whether an error is the homeserver's: a JSON object, or nothing at
// all. What else comes is from a proxy in between, and says nothing of the event;
// nor does a homeserver that does not know the address, as while it is restarted
// or where a process that has no delayed events gets the call.
func isOwn(body []byte) bool {
	if len(body) == 0 {
		return true
	}
	var failure *struct {
		Code string `json:"errcode"`
	}
	return json.Unmarshal(body, &failure) == nil && failure != nil && failure.Code != "M_UNRECOGNIZED"
}

func (a API) do(request *http.Request) (int, http.Header, []byte, error) {
	request.Header.Set("User-Agent", "Passerelle")
	if a.Token != "" {
		request.Header.Set("Authorization", "Bearer "+a.Token.Reveal())
	}
	got, err := a.Client.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(io.LimitReader(got.Body, maxAnswer+1))
	if len(body) > maxAnswer {
		err = errors.Join(err, errors.New("the answer is too large"))
	}
	return got.StatusCode, got.Header, body, err
}

// retryAfter reads how long to stay away: the header Retry-After, in seconds
// or as a date (RFC 9110, 10.2.3), else the older field in the body (Matrix
// client-server API, "Rate limiting").
func retryAfter(header http.Header, body []byte) time.Duration {
	var limit struct {
		RetryAfterMS float64 `json:"retry_after_ms"`
	}
	_ = json.Unmarshal(body, &limit) // most have none
	older := time.Duration(min(limit.RetryAfterMS, float64(maxAfter/time.Millisecond))) * time.Millisecond
	return min(max(retryafter.Parse(header.Get("Retry-After"), older), 0), maxAfter)
}

// supports asks whether the homeserver has delayed events.
func (a API) supports(ctx context.Context) (bool, error) {
	address := strings.TrimSuffix(a.URL.String(), "/") + "/_matrix/client/versions"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false, err
	}
	// It is the same for everybody, and a token that the homeserver does not know
	// would be refused.
	a.Token = ""
	status, _, body, err := a.do(request)
	if err != nil {
		return false, err
	}
	var versions mautrix.RespVersions
	if status != http.StatusOK || json.Unmarshal(body, &versions) != nil {
		return false, errors.New("not the answer expected")
	}
	return versions.UnstableFeatures["org.matrix.msc4140"], nil
}

package leave_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// call is one request that a homeserver got.
type call struct {
	at     time.Duration // since the test began
	what   string        // restart, send or cancel
	id     string
	status int
	token  string
	path   string
}

// homeserver has delayed events as Synapse does, and its default limits where
// limit is set.
type homeserver struct {
	began time.Time

	mu     sync.Mutex
	events map[string]*delayed
	calls  []call
	limit  *rate.Limiter
	// answers, unless nil, may answer in its place: a status of 0 lets it be,
	// -1 breaks the connection.
	answers  func(what, id string, nth int) (status int, header http.Header, body string)
	features string
	// stranger: it knows nobody's token.
	stranger bool
}

type delayed struct {
	delay   time.Duration
	due     time.Time
	fate    string // "", sent or cancelled
	fatedAt time.Duration
}

func newHomeserver() *homeserver {
	return &homeserver{began: time.Now(), events: map[string]*delayed{}, features: `{"org.matrix.msc4140":true}`}
}

func (h *homeserver) schedule(id string, delay time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events[id] = &delayed{delay: delay, due: time.Now().Add(delay)}
}

func (h *homeserver) knows(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, known := h.events[id]
	return known
}

// misbehave sets what may answer in its place.
func (h *homeserver) misbehave(answers func(what, id string, nth int) (int, http.Header, string)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers = answers
}

// estrange has it know no token, or all of them again.
func (h *homeserver) estrange(stranger bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stranger = stranger
}

// forget has the event ended by somebody else.
func (h *homeserver) forget(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events[id].fate = "cancelled"
}

// fire sends what is due.
func (h *homeserver) fire() {
	for _, e := range h.events {
		if e.fate == "" && !time.Now().Before(e.due) {
			e.fate, e.fatedAt = "fired", e.due.Sub(h.began)
		}
	}
}

// fate is what became of the event: "", fired by its timer, sent or cancelled.
func (h *homeserver) fate(id string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fire()
	return h.events[id].fate
}

func (h *homeserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fire()
	if r.URL.Path == "/base/_matrix/client/versions" {
		fmt.Fprintf(w, `{"versions":["v1.11"],"unstable_features":%s}`, h.features)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/base/_matrix/client/unstable/org.matrix.msc4140/delayed_events/")
	escaped, what, _ := strings.Cut(rest, "/")
	name, err := url.PathUnescape(escaped)
	if !ok || err != nil || r.Method != http.MethodPost || r.URL.RawQuery != "" {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	c := call{at: time.Since(h.began), what: what, id: name, token: r.Header.Get("Authorization"), path: r.URL.EscapedPath()}
	var header http.Header
	var body string
	if h.answers != nil {
		c.status, header, body = h.answers(what, name, h.count(what, name))
	}
	if c.status == 0 && h.stranger && c.token != "" {
		c.status, body = http.StatusUnauthorized, `{"errcode":"M_UNKNOWN_TOKEN"}`
	}
	if c.status == 0 {
		c.status, header, body = h.answer(what, name, c.token != "")
	}
	h.calls = append(h.calls, c)
	for key, values := range header {
		w.Header()[key] = values
	}
	if c.status == -1 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(c.status)
	_, _ = w.Write([]byte(body))
}

func (h *homeserver) answer(what, name string, authenticated bool) (int, http.Header, string) {
	if h.limit != nil && !authenticated && !h.limit.Allow() {
		return http.StatusTooManyRequests, nil, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":700}`
	}
	e, known := h.events[name]
	if !known || e.fate != "" {
		return http.StatusNotFound, nil, `{"errcode":"M_NOT_FOUND"}`
	}
	switch what {
	case "restart":
		e.due = time.Now().Add(e.delay)
	case "send":
		e.fate, e.fatedAt = "sent", time.Since(h.began)
	case "cancel":
		e.fate = "cancelled"
	default:
		return http.StatusBadRequest, nil, `{}`
	}
	return http.StatusOK, nil, `{}`
}

func (h *homeserver) count(what, id string) (n int) {
	for _, c := range h.calls {
		if c.what == what && c.id == id {
			n++
		}
	}
	return n
}

// got are the calls of one kind about an event; "" is all of them.
func (h *homeserver) got(what, id string) (found []call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.calls {
		if (what == "" || c.what == what) && (id == "" || c.id == id) {
			found = append(found, c)
		}
	}
	return found
}

// RoundTrip hands a request over without a network, which a bubble of synctest
// cannot see through.
func (h *homeserver) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	recorder := httptest.NewRecorder()
	defer func() {
		if recover() != nil {
			err = errors.New("connection reset by peer")
		}
	}()
	h.ServeHTTP(recorder, r)
	return recorder.Result(), r.Context().Err()
}

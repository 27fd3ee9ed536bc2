package leave_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"golang.org/x/time/rate"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/leave"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

const (
	room   = matrixrtc.SFURoom("room")
	server = "own.example"
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

// town is Leaves with a homeserver and an SFU that are pretended.
type town struct {
	*leave.Leaves
	t     *testing.T
	db    *dbutil.Database
	home  *homeserver
	token config.Secret
	own   bool
	store leave.Store
	reg   *prometheus.Registry
	stop  func()

	mu      sync.Mutex
	present map[matrixrtc.Identity]string // SID
	sfuDown bool
	lies    func(who matrixrtc.Identity) bool // says "not found"
	looks   int
	log     strings.Builder
}

// API implements leave.Homeservers.
func (w *town) API(_ context.Context, name string) (leave.API, error) {
	if name != server {
		return leave.API{}, errors.New("no such server")
	}
	return leave.API{URL: &url.URL{Scheme: "https", Host: "hs", Path: "/base"}, Token: w.token, Client: &http.Client{Transport: w.home}}, nil
}

// Own implements leave.Homeservers.
func (w *town) Own() (leave.API, bool) {
	api, _ := w.API(context.Background(), server)
	return api, w.own
}

// Participant implements leave.SFU.
func (w *town) Participant(_ context.Context, in matrixrtc.SFURoom, who matrixrtc.Identity) (matrixrtc.Participant, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if w.sfuDown {
		return matrixrtc.Participant{}, false, errors.New("connection refused")
	}
	sid, ok := w.present[who]
	if !ok || in != room || w.lies != nil && w.lies(who) {
		return matrixrtc.Participant{}, false, nil
	}
	return matrixrtc.Participant{Identity: who, SID: sid, Joined: true}, true, nil
}

func (w *town) set(who matrixrtc.Identity, sid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sid == "" {
		delete(w.present, who)
		return
	}
	w.present[who] = sid
}

func (w *town) down(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sfuDown = down
}

// Write takes the log.
func (w *town) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

// start starts Leaves over the town's database, as a process would.
func (w *town) start() {
	w.t.Helper()
	w.reg = prometheus.NewRegistry()
	store := w.store
	if store == nil {
		store = leave.NewStore(w.db)
	}
	l, err := leave.New(leave.Options{Store: store, Homeservers: w, SFU: w, Registerer: w.reg, Log: zerolog.New(w), Timing: w.timing()})
	require.NoError(w.t, err)
	w.Leaves = l
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	w.stop = func() {
		cancel()
		require.NoError(w.t, <-ended)
	}
	synctest.Wait()
}

var timings sync.Map // of *town to its Timing

func (w *town) timing() leave.Timing {
	if own, ok := timings.Load(w); ok {
		return own.(leave.Timing)
	}
	return leave.DefaultTiming()
}

// inTown runs a test on every database, each time in a bubble whose clock is
// its own.
func inTown(t *testing.T, test func(w *town), change ...func(*town)) {
	t.Helper()
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		synctest.Test(t, func(t *testing.T) {
			w := &town{t: t, db: db, home: newHomeserver(), present: map[matrixrtc.Identity]string{}}
			for _, c := range change {
				c(w)
			}
			w.start()
			test(w)
			w.stop()
			for id := range w.home.events {
				require.NotContains(t, w.log.String(), id, "the delay ID is a secret")
			}
		})
	})
}

// hand schedules a leave at the homeserver and hands it over.
func (w *town) hand(who matrixrtc.Identity, delayID string, delay time.Duration, change ...func(*matrixrtc.DelayedLeave)) {
	w.t.Helper()
	if _, known := w.home.events[delayID]; !known {
		w.home.schedule(delayID, delay)
	}
	d := matrixrtc.DelayedLeave{
		Room: room, Identity: who, User: id.UserID("@" + string(who) + ":" + server), Server: server,
		DelayID: matrixrtc.DelayID(delayID), Delay: delay,
	}
	for _, c := range change {
		c(&d)
	}
	require.NoError(w.t, w.Delegate(w.t.Context(), d))
	w.settle()
}

// settle lets everything happen that is to happen now.
func (w *town) settle() {
	synctest.Wait()
	time.Sleep(time.Millisecond)
	synctest.Wait()
}

// pass lets time go by.
func (w *town) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *town) joins(who matrixrtc.Identity, sid string) {
	w.set(who, sid)
	w.report(matrixrtc.ParticipantJoined, who, sid, "")
}

func (w *town) leaves(who matrixrtc.Identity, sid, reason string) {
	w.mu.Lock()
	if w.present[who] == sid {
		delete(w.present, who)
	}
	w.mu.Unlock()
	w.report(matrixrtc.ParticipantLeft, who, sid, reason)
}

func (w *town) report(kind matrixrtc.SFUEventType, who matrixrtc.Identity, sid, reason string) {
	w.SFUEvent(w.t.Context(), matrixrtc.SFUEvent{Type: kind, Room: room, At: time.Now().Truncate(time.Second),
		Identity: who, ParticipantSID: sid, Reason: reason})
	w.settle()
}

// rows are the states of what is stored, sorted.
func (w *town) rows() []string {
	w.t.Helper()
	found, err := w.db.Query(context.Background(), "SELECT state FROM delayed_leave")
	states, err := dbutil.NewRowIterWithError(found, dbutil.ScanSingleColumn[string], err).AsList()
	require.NoError(w.t, err)
	slices.Sort(states)
	return states
}

// metric is the value of a metric, of its labels together.
func (w *town) metric(name string) float64 {
	w.t.Helper()
	families, err := w.reg.Gather()
	require.NoError(w.t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	encoded, err := json.Marshal(families)
	require.NoError(w.t, err)
	for id := range w.home.events {
		require.NotContains(w.t, string(encoded), id)
	}
	return sum
}

package leave_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
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

// town is Leaves with a homeserver and an SFU that are pretended.
type town struct {
	*leave.Leaves
	t     *testing.T
	db    *dbutil.Database
	home  *homeserver
	token config.Secret
	own   bool
	store leave.Store
	// timing is the default unless the test changes it.
	timing leave.Timing
	reg    *prometheus.Registry
	stop   func()

	mu      sync.Mutex
	present map[matrixrtc.Identity]string // SID
	slow    time.Duration                 // is how long the SFU takes to answer
	joining map[string]time.Time          // by SID, since when
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

// since is when the SFU takes a connection that is not active to have begun.
func (w *town) since(sid string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.joining[sid] = at
}

// Participant implements leave.SFU.
func (w *town) Participant(_ context.Context, in matrixrtc.SFURoom, who matrixrtc.Identity) (matrixrtc.Participant, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// What is answered was so when it was asked.
	defer func(slow time.Duration) {
		w.mu.Unlock()
		time.Sleep(slow)
		w.mu.Lock()
	}(w.slow)
	w.looks++
	if w.sfuDown {
		return matrixrtc.Participant{}, false, errors.New("connection refused")
	}
	sid, ok := w.present[who]
	if !ok || in != room || w.lies != nil && w.lies(who) {
		return matrixrtc.Participant{}, false, nil
	}
	since, joining := w.joining[sid]
	return matrixrtc.Participant{Identity: who, SID: sid, Joined: !joining, JoinedAt: since}, true, nil
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

// lists has the SFU list a connection that is not active.
func (w *town) lists(who matrixrtc.Identity, sid string) {
	w.set(who, sid)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.joining[sid] = time.Now().Truncate(time.Second)
}

// empty takes everybody off the SFU.
func (w *town) empty() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.present)
}

// lie has the SFU say "not found" when it should not.
func (w *town) lie(lies func(matrixrtc.Identity) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lies = lies
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
	l, err := leave.New(leave.Options{Store: store, Homeservers: w, SFU: w, Registerer: w.reg, Log: zerolog.New(w), Timing: w.timing})
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

// inTown runs a test on every database, each time in a bubble whose clock is
// its own.
func inTown(t *testing.T, test func(w *town), change ...func(*town)) {
	t.Helper()
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		inBubble(t, db, test, change)
	})
}

func inBubble(t *testing.T, db *dbutil.Database, test func(w *town), change []func(*town)) {
	synctest.Test(t, func(t *testing.T) {
		w := &town{t: t, db: db, home: newHomeserver(), present: map[matrixrtc.Identity]string{}, joining: map[string]time.Time{}, timing: leave.DefaultTiming()}
		for _, c := range change {
			c(w)
		}
		w.start()
		defer func() { w.stop() }()
		test(w)
		for id := range w.home.events {
			require.NotContains(t, w.log.String(), id, "the delay ID is a secret")
		}
	})
}

// inMemory is inTown without a database, where it would only take time.
func inMemory(t *testing.T, test func(w *town), change ...func(*town)) {
	t.Helper()
	inBubble(t, nil, test, append(change, func(w *town) { w.store = &memory{jobs: map[string]leave.Job{}} }))
}

// memory is a store for the life of a test.
type memory struct {
	mu   sync.Mutex
	jobs map[string]leave.Job
}

// Load implements leave.Store.
func (m *memory) Load(context.Context) ([]leave.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.jobs)), nil
}

// Add implements leave.Store.
func (m *memory) Add(_ context.Context, j leave.Job) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs[j.ID] = j
	return nil
}

// Update implements leave.Store.
func (m *memory) Update(ctx context.Context, j leave.Job) error { return m.Add(ctx, j) }

// Remove implements leave.Store.
func (m *memory) Remove(_ context.Context, j leave.Job) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.jobs, j.ID)
	return nil
}

// hand schedules a leave at the homeserver and hands it over.
func (w *town) hand(who matrixrtc.Identity, delayID string, delay time.Duration, change ...func(*matrixrtc.DelayedLeave)) {
	w.t.Helper()
	if !w.home.knows(delayID) {
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

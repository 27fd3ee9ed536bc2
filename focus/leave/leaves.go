package leave

import (
	"container/heap"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

const (
	// maxLooks and maxWrites bound how many questions the SFU is asked, and
	// how many rows are written outside of calls, at once.
	maxLooks, maxWrites = 8, 4
	// maxCalls bounds how many calls one homeserver gets at once.
	maxCalls = 8
)

// Leaves looks after the leaves that clients hand over. It is safe for
// concurrent use; nothing happens by itself unless Run runs.
type Leaves struct {
	options Options
	timing  Timing
	shared  Shared // nil unless several processes use the store
	log     zerolog.Logger
	metrics metrics
	// unsupported: our own homeserver says that it has no delayed events.
	unsupported atomic.Bool
	wake        chan struct{}
	workers     sync.WaitGroup

	mu       sync.Mutex
	loaded   bool
	stopping bool
	calls    context.Context // of all that workers do; set by Run
	tasks    map[string]*task
	rooms    map[matrixrtc.SFURoom]map[string]*task
	users    map[id.UserID]int
	heap     dueHeap[*task]
	lanes    map[string]*lane // by server
	sfu      *lane
	rows     *lane
	// readyAt is when the SFU was last found to be there again.
	readyAt time.Time
}

// New returns Leaves that look after nothing yet.
func New(o Options) (*Leaves, error) {
	if o.Store == nil || o.Homeservers == nil || o.SFU == nil || o.Registerer == nil {
		return nil, errors.New("leave: Options need a Store, Homeservers, an SFU and a Registerer")
	}
	if o.Timing == (Timing{}) {
		o.Timing = DefaultTiming()
	}
	l := &Leaves{
		options: o, timing: o.Timing, log: o.Log,
		wake:  make(chan struct{}, 1),
		tasks: map[string]*task{},
		rooms: map[matrixrtc.SFURoom]map[string]*task{},
		users: map[id.UserID]int{},
		lanes: map[string]*lane{},
		sfu:   &lane{max: maxLooks},
		rows:  &lane{max: maxWrites},
	}
	l.shared, _ = o.Store.(Shared)
	l.metrics = newMetrics(o.Registerer, l)
	return l, nil
}

// Available tells whether leaves can be taken over, as far as is known:
// a homeserver that does not answer is believed to have delayed events.
func (l *Leaves) Available() bool { return !l.unsupported.Load() }

// Reachable is nil when the client-server API of the server is known or can be
// found. The error says nothing of the client's.
func (l *Leaves) Reachable(ctx context.Context, server string) error {
	_, err := l.options.Homeservers.API(ctx, server)
	return err
}

// Delegate takes a leave over and returns once that is stored. An earlier one
// of the same identity is cancelled, unless it is the same leave. Errors are
// [matrixrtc.ErrTooManyLeaves], [matrixrtc.ErrStopping] and those of the store.
func (l *Leaves) Delegate(ctx context.Context, d matrixrtc.DelayedLeave) error {
	d.Delay = min(max(d.Delay, l.timing.MinDelay), l.timing.MaxDelay)
	// Databases keep milliseconds.
	now := time.Now().Truncate(time.Millisecond)
	l.take(ctx, d.Room, d.Identity)
	if d.Also != "" {
		l.take(ctx, d.Room, d.Also)
	}
	t, known, err := l.reserve(d, now)
	if err != nil {
		return err
	}
	if known {
		return l.options.Store.Update(ctx, t.Job)
	}
	err = l.options.Store.Add(ctx, t.Job)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.users[d.User]-- // insert counts it again
	if err != nil {
		if l.users[d.User] == 0 {
			delete(l.users, d.User)
		}
		return err
	}
	l.metrics.accepted.Inc()
	l.insert(t, now)
	return nil
}

// reserve makes a place for a leave, or finds that it is there already; the
// task is a copy then.
func (l *Leaves) reserve(d matrixrtc.DelayedLeave, now time.Time) (t *task, known bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return nil, false, matrixrtc.ErrStopping
	}
	for _, old := range l.rooms[d.Room] {
		if old.Identity == d.Identity && old.DelayID == d.DelayID && old.live() {
			old.Delay = d.Delay
			if old.State == Connected {
				old.act = now
			}
			l.schedule(old)
			return &task{Job: old.Job}, true, nil
		}
	}
	if l.users[d.User] >= l.timing.MaxPerUser || len(l.tasks) >= l.timing.MaxJobs {
		return nil, false, matrixrtc.ErrTooManyLeaves
	}
	l.users[d.User]++
	return &task{slot: slot{index: -1}, Job: Job{
		ID: rand.Text(), DelayedLeave: d, State: Waiting, CreatedAt: l.afterOthers(d, now), RestartedAt: now,
	}}, false, nil
}

// afterOthers is now, or later where earlier leaves of the participant seem to
// be from the future: clocks step back, and those of processes differ. It is
// the newest that counts.
func (l *Leaves) afterOthers(d matrixrtc.DelayedLeave, now time.Time) time.Time {
	for _, other := range l.rooms[d.Room] {
		if (other.watches(d.Identity) || other.watches(d.Also)) && !other.CreatedAt.Before(now) {
			now = other.CreatedAt.Add(time.Millisecond)
		}
	}
	return now
}

// insert begins to look after a task. Of several that watch for the same
// participant the newest has it.
func (l *Leaves) insert(t *task, now time.Time) {
	if _, known := l.tasks[t.ID]; known {
		return
	}
	l.tasks[t.ID] = t
	if l.rooms[t.Room] == nil {
		l.rooms[t.Room] = map[string]*task{}
	}
	l.rooms[t.Room][t.ID] = t
	l.users[t.User]++
	// One from the future tells that a clock was set back or differs: when it
	// really was put off is not known.
	unknown := t.RestartedAt.After(now)
	if unknown {
		t.RestartedAt = now
	}
	if t.live() || t.State == Sending {
		l.displace(t, now)
	}
	switch t.State {
	case Sending, Cancelling:
		t.act = now
	case Waiting, Failed:
		t.look = now
	case Connected:
		// Restored. One whose time has passed is not put off before it is known
		// that its participant is there.
		t.look, t.until = now, now.Add(l.timing.ReconnectWait)
		if t.GoneAt.After(t.until) {
			t.GoneAt = time.Time{}
		}
		if !unknown && now.Before(t.deadline()) {
			t.act = t.RestartedAt.Add(l.pause(t.Delay))
		}
	}
	l.schedule(t)
}

// displace gives the participant to t, or t itself up where another is newer.
// That goes for a leave that could not be sent yet, too (see overtake).
func (l *Leaves) displace(t *task, now time.Time) {
	for _, other := range l.rooms[t.Room] {
		same := other.Identity == t.Identity || other.connectedAs(t.Identity) || t.Also != "" && other.connectedAs(t.Also)
		if other == t || !other.live() && other.State != Sending || !same {
			continue
		}
		if other.CreatedAt.After(t.CreatedAt) {
			l.replace(t, other, now)
			return
		}
		for sid, as := range other.here {
			if t.watches(as) && !t.over(sid) {
				l.arrived(t, sid, as, now)
			}
		}
		t.ended(other.left...)
		l.replace(other, t, now)
	}
}

// replace ends a leave whose place another has.
func (l *Leaves) replace(t, by *task, now time.Time) {
	if l.timing.KeepReplaced || t.DelayID == by.DelayID {
		l.end(t, "replaced", now)
		return
	}
	t.State, t.tries = Cancelling, 0
	t.act, t.look = now, time.Time{}
	l.save(t)
	l.schedule(t)
}

// end leaves nothing of a leave to do but to delete its row.
func (l *Leaves) end(t *task, outcome string, now time.Time) {
	if t.State == done {
		return
	}
	l.metrics.ended.WithLabelValues(outcome).Inc()
	t.unqueue()
	t.State, t.tries = done, 0
	t.act, t.look = now, time.Time{}
	l.schedule(t)
}

// forget lets go of a task.
func (l *Leaves) forget(t *task) {
	if _, known := l.tasks[t.ID]; !known {
		return
	}
	delete(l.tasks, t.ID)
	delete(l.rooms[t.Room], t.ID)
	if len(l.rooms[t.Room]) == 0 {
		delete(l.rooms, t.Room)
	}
	if l.users[t.User]--; l.users[t.User] <= 0 {
		delete(l.users, t.User)
	}
	if t.index >= 0 {
		heap.Remove(&l.heap, t.index)
	}
	t.unqueue()
	t.State = done
}

// take takes over what another process has of the identity.
func (l *Leaves) take(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) {
	if l.shared == nil || who == "" {
		return
	}
	jobs, err := l.shared.Take(ctx, room, who)
	if err != nil {
		// Its present owner finds out later what happened.
		l.log.Err(err).Msg("Delayed leaves of another process not taken over")
		return
	}
	l.adopt(jobs)
}

func (l *Leaves) adopt(jobs []Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, j := range jobs {
		l.insert(&task{Job: j, slot: slot{index: -1}}, now)
	}
}

// Load takes up what an earlier process left behind. Run does it where it was
// not done before.
func (l *Leaves) Load(ctx context.Context) error {
	jobs, err := l.options.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load delayed leaves: %w", err)
	}
	l.adopt(jobs)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loaded = true
	if len(jobs) > 0 {
		l.log.Info().Int("leaves", len(jobs)).Msg("Delayed leaves of an earlier process are looked after")
	}
	return nil
}

// lane returns the way to a server.
func (l *Leaves) lane(server string, now time.Time) *lane {
	n, known := l.lanes[server]
	if !known {
		for name, other := range l.lanes {
			if other.idle(now) {
				delete(l.lanes, name)
			}
		}
		n = &lane{max: maxCalls, used: now, pace: l.newPace()}
		l.lanes[server] = n
	}
	return n
}

func (l *Leaves) newPace() *rate.Limiter {
	return rate.NewLimiter(rate.Every(l.timing.PaceEvery), l.timing.PaceBurst)
}

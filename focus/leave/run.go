package leave

import (
	"container/heap"
	"context"
	"math"
	"math/rand/v2"
	"time"
)

const (
	// renewEvery is how often the leases of a [Shared] store are renewed.
	renewEvery = 5 * time.Second
	// lastWords is how long calls that are under way may take when Run ends.
	lastWords = 2 * time.Second
	// supportedFor and unknownFor are how long it is believed what our
	// homeserver said of delayed events, and that it said nothing.
	supportedFor, unknownFor = 10 * time.Minute, 30 * time.Second
	// storeTimeout bounds what the store is asked outside of a request.
	storeTimeout = 10 * time.Second
)

// Run looks after the leaves until ctx is done. What is not done then is taken
// up by the next process.
func (l *Leaves) Run(ctx context.Context) error {
	calls, cancelCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelCalls()
	l.mu.Lock()
	l.calls = calls
	l.mu.Unlock()
	l.workers.Go(func() { l.watchSupport(ctx) })
	l.workers.Go(func() { l.watchStore(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		if next := l.step(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
		select {
		case <-timer.C:
		case <-l.wake:
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	l.stopping = true
	l.mu.Unlock()
	cut := time.AfterFunc(lastWords, cancelCalls)
	defer cut.Stop()
	l.workers.Wait()
	return l.release(context.WithoutCancel(ctx))
}

func (l *Leaves) release(ctx context.Context) error {
	if l.shared == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	return l.shared.Release(ctx)
}

// step does what is due and returns when there is more, or zero.
func (l *Leaves) step() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for len(l.heap) > 0 && !now.Before(l.heap[0].due) {
		l.advance(l.heap[0], now)
	}
	var next time.Time
	earliest := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if len(l.heap) > 0 {
		earliest(l.heap[0].due)
	}
	earliest(l.sfu.begin(now))
	earliest(l.rows.begin(now))
	for _, n := range l.lanes {
		earliest(n.begin(now))
	}
	return next
}

// advance queues what is due for a task.
func (l *Leaves) advance(t *task, now time.Time) {
	if end := l.waitEnd(t); !end.IsZero() && !now.Before(end) {
		if t.State == Failed {
			l.end(t, "never_connected", now)
		} else {
			l.gone(t, now)
		}
	}
	if !t.looking && !t.look.IsZero() && !now.Before(t.look) {
		l.queueLook(t)
	}
	if !t.acting && !t.act.IsZero() && !now.Before(t.act) {
		l.queueAct(t, now)
	}
	l.schedule(t)
}

// waitEnd is when its participant must have connected, or zero.
func (l *Leaves) waitEnd(t *task) time.Time {
	if t.State != Waiting && t.State != Failed {
		return time.Time{}
	}
	return t.CreatedAt.Add(min(t.Delay, l.timing.MaxWait))
}

// schedule puts a task where it belongs in the heap, after any change.
func (l *Leaves) schedule(t *task) {
	if _, known := l.tasks[t.ID]; !known {
		return
	}
	t.plan(l.waitEnd(t))
	switch {
	case t.due.IsZero() && t.index >= 0:
		heap.Remove(&l.heap, t.index)
	case t.due.IsZero():
	case t.index >= 0:
		heap.Fix(&l.heap, t.index)
	default:
		heap.Push(&l.heap, t)
	}
	if t.queued != nil {
		if due := t.urgency(); !due.Equal(t.queued.due) {
			t.queued.due = due
			heap.Fix(&t.queued.lane.queue, t.queued.index)
		}
	}
	l.wakeUp()
}

func (l *Leaves) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// pause is how long after a leave was put off it is put off again.
func (l *Leaves) pause(delay time.Duration) time.Duration {
	d := max(time.Duration(float64(delay)*l.timing.RestartAt), l.timing.MinPause)
	return d + rand.N(max(d/20, 1))
}

// backoff is the pause after that many failures in a row.
func (l *Leaves) backoff(failures int) time.Duration {
	d := float64(l.timing.RetryFirst) * math.Pow(1.5, float64(min(failures, 50)))
	d = min(d, float64(l.timing.RetryCap))
	return time.Duration(d * (0.5 + rand.Float64()/2))
}

// watchSupport keeps asking our own homeserver whether it has delayed events.
func (l *Leaves) watchSupport(ctx context.Context) {
	api, ok := l.options.Homeservers.Own()
	for ok && ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, l.timing.CallTimeout)
		supported, err := api.supports(asking)
		cancel()
		again := supportedFor
		switch {
		case ctx.Err() != nil:
			return
		case err != nil || !supported:
			again = unknownFor
		}
		if err == nil && l.unsupported.Swap(!supported) == supported {
			if supported {
				l.log.Info().Msg("The homeserver has delayed events now; leaves are taken over")
			} else {
				l.log.Warn().Msg("The homeserver has no delayed events (MSC4140); leaves are not taken over. Synapse: set max_event_delay_duration")
			}
		}
		sleep(ctx, again+rand.N(again/10))
	}
}

// watchStore loads what was left behind, and keeps the leases.
func (l *Leaves) watchStore(ctx context.Context) {
	for ctx.Err() == nil {
		l.mu.Lock()
		loaded := l.loaded
		l.mu.Unlock()
		asking, cancel := context.WithTimeout(ctx, storeTimeout)
		var err error
		switch {
		case !loaded:
			err = l.Load(asking)
		case l.shared != nil:
			var jobs []Job
			if jobs, err = l.shared.Renew(asking); err == nil {
				l.adopt(jobs)
			}
		default:
			cancel()
			return
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			l.log.Err(err).Msg("Delayed leaves not read; tried again soon")
		}
		if loaded || err != nil {
			sleep(ctx, renewEvery+rand.N(time.Second))
		}
	}
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

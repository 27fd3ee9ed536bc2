package leave

import (
	"container/heap"
	"context"
	"errors"
	"time"
)

// sendAtLeast is how long sending is tried, also when the homeserver should
// have sent the leave by itself before that.
const sendAtLeast = time.Minute

// urgency is the order of calls to one homeserver: what comes first is due
// first. A leave to be put off is due when it would come, and one that has to
// be sent when the participant went; so leaves go first, unless somebody who
// is there would soon be taken to have left.
func (t *task) urgency() time.Time {
	if t.State == Sending {
		return t.GoneAt
	}
	return t.deadline()
}

// queueAct queues the call that the task's state needs.
func (l *Leaves) queueAct(t *task, now time.Time) {
	n := l.rows
	if t.State != done {
		n = l.lane(t.Server, now)
	}
	planned := t.act
	t.acting = true
	t.queued = &op{lane: n, slot: slot{due: t.urgency()}, begin: func() {
		t.queued = nil
		job, first, tokenless := t.Job, t.tries == 0, time.Now().Before(n.tokenAgain)
		l.workers.Go(func() {
			r := l.perform(job, first, tokenless)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.acted(n, t, job, planned, r)
			l.schedule(t)
		})
	}}
	heap.Push(&n.queue, t.queued)
}

// save queues the writing of a task's row after it took another state, so that
// the next process knows.
func (l *Leaves) save(t *task) {
	t.unsaved = true
	if t.saving {
		return
	}
	t.saving = true
	heap.Push(&l.rows.queue, &op{lane: l.rows, slot: slot{due: time.Now()}, begin: func() {
		t.unsaved = false
		job := t.Job
		if job.State == done {
			l.rows.running--
			t.saving = false
			return
		}
		l.workers.Go(func() {
			ctx, cancelWrite := context.WithTimeout(l.calls, storeTimeout)
			defer cancelWrite()
			ours := l.update(ctx, job)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.rows.running--
			t.saving = false
			switch {
			case !ours:
				l.forget(t)
			case t.unsaved:
				l.save(t)
			}
			l.wakeUp()
		})
	}})
	l.wakeUp()
}

// unqueue takes back a call that has not begun.
func (t *task) unqueue() {
	if t.queued == nil {
		return
	}
	heap.Remove(&t.queued.lane.queue, t.queued.index)
	t.queued, t.acting = nil, false
}

// result is what became of an act.
type result struct {
	answer
	what action
	// began is when the homeserver was asked.
	began time.Time
	// called: the homeserver was asked at all. authenticated: with a token.
	called, authenticated bool
	// lost: another process looks after the leave.
	lost bool
	// removed: its row is gone.
	removed bool
}

// perform does what the job's state needs, in a worker.
func (l *Leaves) perform(job Job, first, tokenless bool) result {
	ctx, cancelCall := context.WithTimeout(l.calls, l.timing.CallTimeout)
	defer cancelCall()
	if job.State == done {
		r := result{removed: l.remove(ctx, job)}
		if !r.removed {
			r.verdict = unreachable
		}
		return r
	}
	r := result{what: restart, began: time.Now()}
	switch job.State {
	case Sending:
		r.what = send
	case Cancelling:
		r.what = cancel
	}
	if first && r.what != restart && !l.update(ctx, job) {
		r.lost = true
		return r
	}
	api, err := l.options.Homeservers.API(ctx, job.Server)
	if err != nil {
		r.verdict = unreachable
		return r
	}
	if tokenless {
		api.Token = ""
	}
	r.called, r.authenticated = true, api.Token != ""
	r.answer = api.call(ctx, r.what, job.DelayID.Reveal())
	switch {
	case r.what == restart && r.verdict == accepted:
		job.RestartedAt = r.began
		r.lost = !l.update(ctx, job)
	case r.verdict == missing || r.verdict == refused || r.what != restart && r.verdict == accepted:
		r.removed = l.remove(ctx, job)
	}
	return r
}

// update stores the job and tells whether it is still ours. A store that fails
// does not keep a leave from being put off or sent.
func (l *Leaves) update(ctx context.Context, job Job) bool {
	err := l.options.Store.Update(ctx, job)
	if err != nil && !errors.Is(err, ErrNotOurs) && ctx.Err() == nil {
		l.log.Err(err).Msg("Delayed leave not stored; a restart now would not know how it stands")
	}
	return !errors.Is(err, ErrNotOurs)
}

func (l *Leaves) remove(ctx context.Context, job Job) bool {
	err := l.options.Store.Remove(ctx, job)
	if err != nil && ctx.Err() == nil {
		l.log.Err(err).Msg("Delayed leave not deleted; tried again later")
	}
	return err == nil
}

// acted takes in what became of an act. The task may have changed meanwhile.
func (l *Leaves) acted(n *lane, t *task, job Job, planned time.Time, r result) {
	now := time.Now()
	n.ended(r.answer, now, l.backoff)
	t.acting = false
	if r.called {
		l.metrics.acted(r.what, r.verdict)
		l.authenticated(n, r)
	}
	switch {
	case r.lost:
		l.forget(t)
	case job.State == done:
		if r.removed {
			l.forget(t)
		} else {
			t.act = now.Add(l.backoff(t.tries))
			t.tries++
		}
	case r.verdict == unauthorised:
		t.act = now
	case r.verdict == failing || r.verdict == unreachable:
		l.retry(t, job, r, now)
	case r.what == restart && r.verdict == accepted:
		l.metrics.late(restart, now.Sub(planned))
		t.RestartedAt, t.tries = r.began, 0
		if t.State == Connected {
			t.act = r.began.Add(l.pause(t.Delay))
		}
	default:
		if r.what == send && r.verdict == accepted {
			l.metrics.late(send, now.Sub(job.GoneAt))
		}
		l.finish(t, outcomeOf(r), r.removed, now)
	}
}

// outcomeOf is how a leave ended, as metrics name it.
func outcomeOf(r result) string {
	switch {
	case r.verdict == refused:
		return "refused"
	case r.what == send:
		return "sent" // or the homeserver had sent it before
	case r.what == cancel:
		return "replaced"
	}
	return "vanished"
}

func (l *Leaves) finish(t *task, outcome string, removed bool, now time.Time) {
	l.end(t, outcome, now)
	if removed {
		l.forget(t)
	}
}

// retry plans the next try after a failure, or gives up when the homeserver
// must have sent the leave by itself.
func (l *Leaves) retry(t *task, job Job, r result, now time.Time) {
	if t.State != job.State {
		return // it has something else to do, and knows when
	}
	if t.State == Sending && len(t.here) > 0 {
		l.back(t, now)
		return
	}
	until := t.deadline()
	if least := t.GoneAt.Add(sendAtLeast); t.State == Sending && least.After(until) {
		until = least
	}
	if !now.Before(until) {
		l.finish(t, "expired", false, now)
		return
	}
	t.tries++
	t.act = now
	if r.verdict == failing {
		t.act = now.Add(l.backoff(t.tries - 1))
	}
	if t.act.After(until) {
		t.act = until // once more then
	}
}

// authenticated follows whether calls to a server show a token that is good:
// those are not paced. A token that is not is shown again after a while, by one
// call, which is made without it then.
func (l *Leaves) authenticated(n *lane, r result) {
	switch {
	case r.verdict == unauthorised:
		if n.tokenAgain.IsZero() {
			l.log.Error().Msg("The homeserver does not know homeserver.as_token; delayed leaves are managed without it, slowly")
		}
		n.tokenAgain = time.Now().Add(tokenPause)
		if n.pace == nil {
			n.pace = l.newPace()
		}
	case r.authenticated && r.known():
		if !n.tokenAgain.IsZero() {
			l.log.Info().Msg("The homeserver knows homeserver.as_token again")
		}
		n.pace, n.tokenAgain = nil, time.Time{}
	}
}

// known tells whether the answer shows that the homeserver knows the token.
func (r result) known() bool {
	return r.verdict == accepted || r.verdict == missing || r.verdict == refused
}

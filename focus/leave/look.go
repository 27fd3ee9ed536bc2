package leave

import (
	"container/heap"
	"context"
	"time"

	"passerelle/focus/matrixrtc"
)

// sfuPause bounds the pause between questions to an SFU that does not answer.
const sfuPause = 5 * time.Second

// queueLook queues a question to the SFU. Those that a report has raised go
// first.
func (l *Leaves) queueLook(t *task) {
	due := t.look
	if t.reported {
		due = time.Time{}
	}
	t.looking, t.look = true, time.Time{}
	heap.Push(&l.sfu.queue, &op{lane: l.sfu, due: due, begin: func() {
		began, room := time.Now(), t.Room
		names := []matrixrtc.Identity{t.Identity}
		if t.Also != "" {
			names = append(names, t.Also)
		}
		l.workers.Go(func() {
			seen, err := l.ask(room, names)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.looked(t, began, seen, err)
			l.schedule(t)
		})
	}})
}

// ask looks for each name.
func (l *Leaves) ask(room matrixrtc.SFURoom, names []matrixrtc.Identity) ([]matrixrtc.Participant, error) {
	ctx, cancelLook := context.WithTimeout(l.calls, l.timing.CallTimeout)
	defer cancelLook()
	var seen []matrixrtc.Participant
	for _, name := range names {
		p, found, err := l.options.SFU.Participant(ctx, room, name)
		if err != nil {
			return nil, err
		}
		if found {
			p.Identity = name
			seen = append(seen, p)
		}
	}
	return seen, nil
}

// looked takes in an answer of the SFU.
func (l *Leaves) looked(t *task, began time.Time, seen []matrixrtc.Participant, err error) {
	now := time.Now()
	t.looking = false
	outage := l.sfu.failures > 0
	if err != nil {
		l.sfu.ended(answer{verdict: unreachable}, now, func(n int) time.Duration { return min(l.backoff(n), sfuPause) })
		switch {
		case !t.live():
		case t.State == Connected && t.reported && l.timing.SilenceConfirms:
			l.gone(t, now)
		case t.look.IsZero():
			t.look = now // the SFU's lane says when
		}
		return
	}
	l.sfu.ended(answer{}, now, nil)
	if outage {
		l.readyAt = now
	}
	if !t.live() {
		return
	}
	if len(seen) == 0 && !t.look.IsZero() {
		return // what was reported meanwhile is newer, and has planned its own look
	}
	stale := false
	for _, p := range seen {
		if t.over(p.SID) {
			stale = true
			continue
		}
		for sid, as := range t.here {
			if as == p.Identity && sid != p.SID {
				t.depart(sid) // its end was not reported
			}
		}
		l.arrived(t, p.SID, p.Identity, now)
	}
	switch {
	case len(t.here) > 0 && !t.seen.Before(began):
		if t.look.IsZero() {
			l.lookAgain(t, now)
		}
	case t.State == Connected && t.goodbye:
		l.gone(t, now)
	case stale:
		t.look = now.Add(l.timing.LookFirst) // its memory lags behind its report
	default:
		l.absent(t, now)
	}
}

// lookAgain plans the next look for a participant that is there.
func (l *Leaves) lookAgain(t *task, now time.Time) {
	t.look = time.Time{}
	if l.timing.LookEvery > 0 {
		t.look = now.Add(l.timing.LookEvery)
	}
}

// absent decides what it means that the SFU does not know the participant.
func (l *Leaves) absent(t *task, now time.Time) {
	if t.State != Connected {
		if t.State == Waiting && t.reported {
			l.gone(t, now)
			return
		}
		t.look = now.Add(min(l.timing.LookFirst<<min(t.looks, 20), l.timing.LookCap))
		t.looks++
		return
	}
	if back := l.readyAt.Add(l.timing.Grace); !l.readyAt.IsZero() && now.Before(back) && !t.seen.After(l.readyAt) {
		t.look = back // it may have lost the SFU, not left it
		return
	}
	clear(t.here)
	switch {
	case t.reported, l.timing.MissPause == 0, !t.missed.IsZero() && now.Sub(t.missed) >= l.timing.MissPause:
		l.gone(t, now)
		return
	case t.missed.IsZero():
		t.missed = now
	}
	t.look = t.missed.Add(l.timing.MissPause)
}

// gone has the leave sent.
func (l *Leaves) gone(t *task, now time.Time) {
	clear(t.here)
	t.State, t.GoneAt, t.tries = Sending, now, 0
	t.act, t.look = now, time.Time{}
	t.reported, t.goodbye, t.missed = false, false, time.Time{}
	l.save(t)
	l.schedule(t)
}

// back takes a leave that was not sent yet for one whose participant is there.
func (l *Leaves) back(t *task, now time.Time) {
	t.State, t.GoneAt, t.tries, t.act = Connected, time.Time{}, 0, now
	l.save(t)
	l.lookAgain(t, now)
}

// arrived takes in that the participant is there.
func (l *Leaves) arrived(t *task, sid string, as matrixrtc.Identity, now time.Time) {
	if t.State == Cancelling || t.State == done {
		return
	}
	t.arrive(sid, as, now)
	switch {
	case t.State == Sending:
		if !t.acting || t.queued != nil {
			l.back(t, now)
		}
	case t.State != Connected:
		t.State, t.act, t.looks = Connected, now, 0
		l.save(t)
		l.overtake(t, as, now)
	case t.act.IsZero() && !t.acting:
		t.act = now
	}
	if t.State == Connected {
		l.lookAgain(t, now)
	}
	l.schedule(t)
}

// overtake ends the older leaves of who is back with t that could not be sent
// yet: sent now, they would end what t is for.
func (l *Leaves) overtake(t *task, as matrixrtc.Identity, now time.Time) {
	for _, other := range l.rooms[t.Room] {
		if other != t && other.State == Sending && other.watches(as) && !other.CreatedAt.After(t.CreatedAt) {
			l.replace(other, t, now)
		}
	}
}

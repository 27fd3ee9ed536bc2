package leave

import (
	"container/heap"
	"context"
	"time"

	"passerelle/focus/matrixrtc"
)

// sfuPause bounds the pause between questions to an SFU that does not answer.
const sfuPause = 5 * time.Second

// clockDoubt is how long a connection must have been seen not to be active by
// our own clock, whatever the SFU's says.
const clockDoubt = 5 * time.Second

// queueLook queues a question to the SFU. Those that a report has raised go
// first.
func (l *Leaves) queueLook(t *task) {
	due := t.look
	if t.reported {
		due = time.Time{}
	}
	t.looking, t.look = true, time.Time{}
	heap.Push(&l.sfu.queue, &op{lane: l.sfu, slot: slot{due: due}, begin: func() {
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
	stale, joining := false, false
	for _, p := range seen {
		if t.over(p.SID) {
			stale = true
			continue
		}
		if !p.Joined && p.SID != t.active {
			stuck, unsure := l.stuck(t, p, now)
			joining = joining || !stuck
			if stuck || unsure {
				continue
			}
		}
		for sid, as := range t.here {
			if as == p.Identity && sid != p.SID {
				t.depart(sid) // its end was not reported
			}
		}
		l.arrived(t, p.SID, p.Identity, now)
	}
	switch {
	case joining:
		t.look = now.Add(max(l.timing.MissPause, l.timing.LookFirst))
	case len(t.here) > 0 && !t.seen.Before(began):
		if t.look.IsZero() {
			l.lookAgain(t, now)
		}
	case t.State == Connected && t.goodbye:
		l.gone(t, now)
	case stale && (len(t.here) > 0 || l.lags(t, now)):
		t.look = now.Add(l.timing.LookFirst)
	default:
		l.absent(t, now)
	}
}

// stuck tells whether a connection has had its time to become active. LiveKit
// gives such up after a minute, but its listing may keep for ever what ended
// in the moment it was put in; nothing is reported of it then. An earlier
// process may have seen it before us. If only the SFU's clock says so we are
// unsure for a while.
func (l *Leaves) stuck(t *task, p matrixrtc.Participant, now time.Time) (stuck, unsure bool) {
	if t.joining != p.SID {
		t.joining, t.joiningSince = p.SID, now
	}
	since := t.joiningSince
	if !p.JoinedAt.IsZero() && p.JoinedAt.Before(since) {
		since = p.JoinedAt
	}
	if l.timing.JoinWait == 0 || now.Sub(since) < l.timing.JoinWait {
		return false, false
	}
	stuck = now.Sub(t.joiningSince) >= clockDoubt
	return stuck, !stuck
}

// lags tells whether the SFU's listing may only lag behind its report.
func (l *Leaves) lags(t *task, now time.Time) bool {
	if t.stale.IsZero() {
		t.stale = now
	}
	return l.timing.JoinWait == 0 || now.Sub(t.stale) < l.timing.JoinWait
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
	if t.reported || l.timing.MissPause == 0 {
		l.gone(t, now)
		return
	}
	if t.GoneAt.IsZero() {
		l.miss(t, now)
	}
	sure := t.GoneAt.Add(l.timing.MissPause)
	if t.until.After(sure) && now.Sub(t.GoneAt) < l.timing.Grace {
		sure = t.until
	}
	if now.Before(sure) {
		t.look = sure
		return
	}
	l.gone(t, now)
}

// miss notes since when the participant is missed, in the row, too: a process
// that is killed again and again must not begin to wait anew each time.
func (l *Leaves) miss(t *task, since time.Time) {
	if since = since.Truncate(time.Millisecond); !t.GoneAt.Equal(since) {
		t.GoneAt = since
		l.save(t)
	}
}

// gone has the leave sent.
func (l *Leaves) gone(t *task, now time.Time) {
	clear(t.here)
	t.State, t.GoneAt, t.tries = Sending, now, 0
	t.act, t.look = now, time.Time{}
	t.reported, t.goodbye = false, false
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
		l.miss(t, time.Time{})
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

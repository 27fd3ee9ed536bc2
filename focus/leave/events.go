package leave

import (
	"context"
	"time"

	"passerelle/focus/matrixrtc"
)

// LiveKit's reasons for the end of a connection (DisconnectReason) that mean
// something here. All others may be the end or not.
const (
	// saidGoodbye: the client left by itself.
	saidGoodbye = "CLIENT_INITIATED"
	// signalClose: the way to the SFU broke, with the door for one.
	signalClose = "SIGNAL_CLOSE"
	// shutdown: the SFU ends; nobody has left.
	shutdown = "SERVER_SHUTDOWN"
)

// another tells whether a connection ended because the same participant has, or
// will have, another one.
func another(reason string) bool {
	return reason == "DUPLICATE_IDENTITY" || reason == "MIGRATION" || reason == "STATE_MISMATCH"
}

// SFUEvent takes in what the SFU reported and others have recorded. Reports may
// repeat, come late, or in another order.
func (l *Leaves) SFUEvent(ctx context.Context, e matrixrtc.SFUEvent) {
	switch e.Type {
	case matrixrtc.ParticipantJoined, matrixrtc.ParticipantLeft, matrixrtc.ParticipantAborted:
		l.take(ctx, e.Room, e.Identity)
	case matrixrtc.RoomFinished:
	default:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if e.Type == matrixrtc.ParticipantJoined {
		l.joined(e, now)
		return
	}
	for _, t := range l.rooms[e.Room] {
		switch {
		case !t.live():
		case e.Type == matrixrtc.RoomFinished:
			if t.State == Connected {
				t.reported, t.look = true, now
				l.schedule(t)
			}
		case t.watches(e.Identity):
			l.departed(t, e, now)
		}
	}
}

// joined gives the participant to the newest leave that watches for it; what
// else has it is of an earlier page of the same client.
func (l *Leaves) joined(e matrixrtc.SFUEvent, now time.Time) {
	var newest *task
	for _, t := range l.rooms[e.Room] {
		if !t.watches(e.Identity) || t.State == Cancelling || t.State == done {
			continue
		}
		if e.ParticipantSID != "" && t.over(e.ParticipantSID) {
			return // reported late
		}
		if newest == nil || t.CreatedAt.After(newest.CreatedAt) {
			newest = t
		}
	}
	if newest == nil {
		return
	}
	newest.active = e.ParticipantSID
	l.arrived(newest, e.ParticipantSID, e.Identity, now)
	l.displace(newest, now)
	for _, t := range l.rooms[e.Room] {
		if t != newest && t.live() && t.watches(e.Identity) {
			l.replace(t, newest, now) // it waited for the same participant
		}
	}
}

// departed takes in that a connection of the task's participant ended.
func (l *Leaves) departed(t *task, e matrixrtc.SFUEvent, now time.Time) {
	if e.ParticipantSID != "" && t.over(e.ParticipantSID) {
		return // repeated
	}
	_, known := t.here[e.ParticipantSID]
	if as, unnamed := t.here[""]; unnamed && !known && as == e.Identity {
		known = true // somebody left the name out before
		delete(t.here, "")
	}
	t.depart(e.ParticipantSID)
	if e.ParticipantSID == "" {
		for sid, as := range t.here {
			if as == e.Identity {
				known = true
				delete(t.here, sid)
			}
		}
	}
	if len(t.here) > 0 {
		return // another one is there
	}
	// An attempt to come back that broke with the signalling, perhaps after a look
	// has seen it: another one follows.
	broken := e.Type == matrixrtc.ParticipantAborted && e.Reason == signalClose
	switch {
	case another(e.Reason) || broken && t.State == Connected:
		if t.State == Connected {
			t.look = now.Add(l.timing.ReconnectWait)
			l.miss(t, t.look.Add(-l.timing.MissPause))
		}
	case e.Reason == shutdown:
		if t.State == Connected {
			t.look = now.Add(l.timing.Grace)
		}
	case t.State == Connected && e.Reason == saidGoodbye && known:
		l.gone(t, now)
	case t.State == Connected && l.timing.SilenceConfirms && l.sfu.failures > 0:
		l.gone(t, now)
	case t.State == Connected:
		t.reported, t.goodbye, t.look = true, e.Reason == saidGoodbye, now
	case t.State == Waiting && e.Type == matrixrtc.ParticipantAborted:
		t.State = Failed
		if l.timing.EndFailed {
			l.end(t, "never_connected", now)
		}
	case l.timing.IgnoreEarlyEnds:
	case t.State == Waiting && !e.At.Before(t.CreatedAt.Truncate(time.Second)):
		// Its own, whose beginning was not reported, or that of the page before;
		// then another one comes soon.
		t.reported, t.look = true, now.Add(l.timing.Grace)
	}
	l.schedule(t)
}

// SFUReady is called when the SFU can take participants. A fresh one knows
// nobody, and those who were there have some time to come back.
func (l *Leaves) SFUReady(fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.sfu.failures, l.sfu.until = 0, time.Time{}
	look := now
	if fresh {
		l.readyAt, look = now, now.Add(l.timing.Grace)
	}
	for _, t := range l.tasks {
		if t.State != Connected {
			continue
		}
		if fresh {
			for sid := range t.here {
				t.depart(sid)
			}
			t.reported, t.goodbye = false, false
			l.miss(t, time.Time{})
		}
		t.look = look
		l.schedule(t)
	}
}

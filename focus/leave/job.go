package leave

import (
	"slices"
	"time"

	"passerelle/focus/matrixrtc"
)

// State is where a leave stands.
type State string

const (
	// Waiting: its participant has not connected yet.
	Waiting State = "waiting"
	// Failed: its participant tried to connect and did not come through. It may
	// try again; if it does not, the homeserver's own timer sends the leave.
	Failed State = "failed"
	// Connected: its participant is on the SFU, and the leave is put off.
	Connected State = "connected"
	// Sending: its participant is gone, and the leave is being sent.
	Sending State = "sending"
	// Cancelling: another leave took its place, and it is being cancelled.
	Cancelling State = "cancelling"
	// done: only its row is left. It is never stored.
	done State = "done"
)

// Job is one leave as a [Store] keeps it.
type Job struct {
	// ID is ours, made at random.
	ID string
	matrixrtc.DelayedLeave
	State State
	// CreatedAt is when it was handed over, RestartedAt when the homeserver
	// last put it off (CreatedAt before the first time), GoneAt when the
	// participant was found to be gone or, while Connected, since when it is
	// missed; or zero.
	CreatedAt, RestartedAt, GoneAt time.Time
}

// deadline is when the homeserver sends the leave by itself.
func (j *Job) deadline() time.Time { return j.RestartedAt.Add(j.Delay) }

// live tells whether the leave still belongs to a participant.
func (j *Job) live() bool {
	return j.State == Waiting || j.State == Failed || j.State == Connected
}

// task is a job while this process looks after it. Its fields are guarded by
// [Leaves.mu].
type task struct {
	Job
	slot // due is when it has to be looked at next

	// act is when the homeserver is to be asked next; zero is never. acting is
	// true from then on until it has answered.
	act    time.Time
	acting bool
	// queued is the call while it waits for its turn.
	queued *op
	// saving: its row is being written; unsaved: it has to be.
	saving, unsaved bool
	// tries counts failures since the last success.
	tries int

	// look is when the SFU is to be asked next; zero is never.
	look    time.Time
	looking bool
	// looks counts looks that changed nothing, while waiting.
	looks int
	// reported: the SFU said that the participant left; one look that does not
	// find it confirms that.
	reported bool
	// goodbye: the client itself said that it leaves.
	goodbye bool
	// until is until when one that an earlier process left behind may have been
	// kept from coming back by that process's end.
	until time.Time

	// here are the connections that are there as far as was reported or seen,
	// by SID; left are those that ended, the last of them.
	here map[string]matrixrtc.Identity
	left []string
	// seen is when it was last known to be there.
	seen time.Time
	// active is the connection that was reported to be there; joining is one that
	// looks have found not to be active yet, since when.
	active, joining string
	joiningSince    time.Time
	// stale is since when looks find only what has ended.
	stale time.Time
}

// maxLeft bounds how many ended connections of one participant are remembered.
const maxLeft = 16

func (t *task) arrive(sid string, as matrixrtc.Identity, now time.Time) {
	if t.here == nil {
		t.here = map[string]matrixrtc.Identity{}
	}
	if len(t.here) >= maxLeft {
		clear(t.here) // reports of their ends were lost; one that is there is enough
	}
	t.here[sid] = as
	t.seen, t.reported, t.goodbye, t.stale = now, false, false, time.Time{}
}

func (t *task) depart(sid string) {
	delete(t.here, sid)
	if sid == "" {
		return // a report without one says which identity, not which connection
	}
	t.ended(sid)
}

// ended remembers connections that are over, the last of them.
func (t *task) ended(sids ...string) {
	t.left = append(t.left, sids...)
	t.left = t.left[max(len(t.left)-maxLeft, 0):]
}

// over tells whether the connection is known to have ended.
func (t *task) over(sid string) bool { return slices.Contains(t.left, sid) }

// watches tells whether the participant may have that identity.
func (t *task) watches(who matrixrtc.Identity) bool {
	return who != "" && (t.Identity == who || t.Also == who)
}

// connectedAs tells whether the participant is there under that identity.
func (t *task) connectedAs(who matrixrtc.Identity) bool {
	for _, as := range t.here {
		if as == who {
			return true
		}
	}
	return false
}

// plan sets due to what comes first.
func (t *task) plan(waitEnd time.Time) {
	t.due = time.Time{}
	earliest := func(at time.Time) {
		if !at.IsZero() && (t.due.IsZero() || at.Before(t.due)) {
			t.due = at
		}
	}
	if !t.acting {
		earliest(t.act)
	}
	if !t.looking {
		earliest(t.look)
	}
	earliest(waitEnd)
}

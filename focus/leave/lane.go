package leave

import (
	"container/heap"
	"time"

	"golang.org/x/time/rate"
)

// lane is the way to one server, or to the SFU, or to the store: what is to be
// asked there, in the order of what is due first, and how fast. It is guarded
// by [Leaves.mu].
type lane struct {
	queue dueHeap[*op]
	// running calls are under way, at most max.
	running, max int
	// pace, unless nil, bounds how often the server is called: one call at a
	// time then, which counts from its end. When it reached the server is not
	// known, only that it was not later than that.
	pace *rate.Limiter
	// until is when the server may be called again, after failures in a row.
	until    time.Time
	failures int
	// tokenAgain is when the token that we have for it, and that it did not know,
	// is shown again.
	tokenAgain time.Time
	used       time.Time
}

// tokenPause is how long a server is called without a token that it did not know.
// It may know it soon: one that is just starting, or whose registration was not
// loaded the last time.
const tokenPause = 5 * time.Minute

// op is one call that is to be made.
type op struct {
	// slot: for what puts a leave off, due is when it would come; for a leave
	// that is due, when it became so.
	slot
	lane *lane
	// begin starts the call, in a goroutine of its own.
	begin func()
}

// begin starts what may be called now. It returns when there is more to start,
// or zero when only a call's end, or a new one, changes anything.
func (n *lane) begin(now time.Time) time.Time {
	for len(n.queue) > 0 {
		limit := n.max
		if n.failures > 0 || n.pace != nil {
			limit = 1 // with failures, one asks whether it is back
		}
		switch {
		case n.running >= limit:
			return time.Time{}
		case now.Before(n.until):
			return n.until
		}
		if n.pace != nil {
			if lacking := 1 - n.pace.TokensAt(now); lacking > 0 {
				return now.Add(max(time.Duration(lacking/float64(n.pace.Limit())*float64(time.Second)), time.Millisecond))
			}
		}
		n.running++
		n.used = now
		heap.Pop(&n.queue).(*op).begin()
	}
	return time.Time{}
}

// ended takes in what a call's end says about the server.
func (n *lane) ended(a answer, now time.Time, pause func(failures int) time.Duration) {
	n.running--
	if n.pace != nil {
		n.pace.AllowN(now, 1)
	}
	if a.verdict != unreachable {
		n.failures = 0
		return
	}
	wait := a.after
	if wait == 0 {
		wait = pause(n.failures)
	}
	n.failures++
	if until := now.Add(wait); until.After(n.until) {
		n.until = until
	}
}

// idle tells whether the lane can be forgotten without its pace being lost.
func (n *lane) idle(now time.Time) bool {
	return n.running == 0 && len(n.queue) == 0 && now.Sub(n.used) > time.Minute && now.After(n.until)
}

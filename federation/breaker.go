package federation

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// breakAfter failures in a row, none later than breakWindow after the one
	// before, a server is left alone for a while.
	breakAfter  = 5
	breakWindow = time.Minute
	// firstPause is how long; each time it fails again, twice as long.
	firstPause = time.Second
	maxPause   = 30 * time.Second
)

// verdict is what a question says about the server that was asked.
type verdict int

const (
	// noVerdict: whoever asked went away before the answer was due.
	noVerdict verdict = iota
	answered
	failed
)

// breakerState is where a breaker stands.
type breakerState string

const (
	// closed: the server is asked.
	closed breakerState = "closed"
	// open: it is left alone.
	open breakerState = "open"
	// halfOpen: the pause is over, and one question probes whether it is back.
	halfOpen breakerState = "half_open"
)

// breaker decides whether a server is asked at all. Only failures that a
// stranger cannot provoke may be reported to it, or strangers could silence
// an honest server.
type breaker struct {
	// off: it stays closed. It is set before the breaker is used.
	off bool

	mu       sync.Mutex
	failures int
	last     time.Time // of the last failure
	pause    time.Duration
	until    time.Time
	probing  bool
}

// String is the state as metrics and logs name it.
func (s breakerState) String() string { return string(s) }

func (b *breaker) state() breakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stateLocked(time.Now())
}

func (b *breaker) stateLocked(now time.Time) breakerState {
	switch {
	case b.failures < breakAfter:
		return closed
	case now.Before(b.until):
		return open
	}
	return halfOpen
}

// refuses tells without any effect whether admit would say no now.
func (b *breaker) refuses() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := b.stateLocked(time.Now())
	return state == open || state == halfOpen && b.probing
}

// admit lets a question go out, or not. Who is admitted reports the verdict
// and passes probe on.
func (b *breaker) admit() (probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.stateLocked(time.Now()) {
	case closed:
		return false, true
	case open:
		return false, false
	}
	if b.probing {
		return false, false
	}
	b.probing = true
	return true, true
}

// report takes in what became of a question. It returns true when that opened
// or closed the breaker.
func (b *breaker) report(v verdict, probe bool) (changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if probe {
		b.probing = false
	}
	switch {
	case v == noVerdict || b.off:
		return false
	case v == answered:
		changed = b.failures >= breakAfter
		b.failures, b.pause, b.until = 0, 0, time.Time{}
		return changed
	case b.failures >= breakAfter && !probe:
		// It was under way when the breaker opened, and tells nothing new.
		return false
	}
	if b.failures < breakAfter {
		if now.Sub(b.last) > breakWindow {
			b.failures = 0
		}
		b.failures++
		changed = b.failures == breakAfter
	}
	b.last = now
	if b.failures == breakAfter {
		// Half of the pause is left to chance, so that replicas do not probe
		// together.
		b.pause = min(max(firstPause, 2*b.pause), maxPause)
		b.until = now.Add(b.pause/2 + rand.N(b.pause/2))
	}
	return changed
}

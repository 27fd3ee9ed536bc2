package focus

import (
	"sync"
	"time"

	"passerelle/focus/matrixrtc"
)

// maxRecent bounds how many rooms are remembered at once. More are forgotten,
// which costs the work that the memory saves and nothing else.
const maxRecent = 10_000

// recent remembers the rooms for which something was done a moment ago, so
// that it need not be done again for everybody who joins the same call. It is
// a memory of this process alone: what it says may be a little old, and who
// asks it must bear that.
type recent struct {
	keep time.Duration // 0 remembers nothing

	mu   sync.Mutex
	done map[matrixrtc.SFURoom]time.Time
	// swept is when done was last cleared of what is too old.
	swept time.Time
}

func newRecent(keep time.Duration) *recent {
	return &recent{keep: keep, done: map[matrixrtc.SFURoom]time.Time{}}
}

// add remembers the room.
func (r *recent) add(room matrixrtc.SFURoom, now time.Time) {
	if r.keep == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.swept) > r.keep {
		for room, at := range r.done {
			if now.Sub(at) > r.keep {
				delete(r.done, room)
			}
		}
		r.swept = now
	}
	if len(r.done) >= maxRecent {
		clear(r.done)
	}
	r.done[room] = now
}

// has tells whether the room was added less than the time to keep ago.
func (r *recent) has(room matrixrtc.SFURoom, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.done[room]
	return ok && now.Sub(at) < r.keep
}

// forget forgets the room.
func (r *recent) forget(room matrixrtc.SFURoom) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.done, room)
}

// forgetAll forgets every room.
func (r *recent) forgetAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.done)
}

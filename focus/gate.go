package focus

import (
	"sync"
	"time"
)

const (
	// maxInWork bounds the token requests that are in work at once: those that
	// wait for a homeserver, the SFU or the database. Each holds some tens of
	// KiB.
	maxInWork = 4096
	// share of what the others leave free is what the users of one server get
	// at most.
	share = 8
	// busyWait is when one that found no place should come back.
	busyWait = time.Second
)

// gate bounds how many token requests are in work at once, in all and of the
// users of one server. One more is refused at once, since it costs nothing then
// and the client knows what to do.
//
// The users of one server get at most an eighth of what all leave free. So a
// homeserver that does not answer never takes all, and neither do twenty of
// them: there is a place for the next server.
type gate struct {
	max int

	mu    sync.Mutex
	total int
	of    map[string]int // by server, without zeros
}

func newGate(limit int) *gate { return &gate{max: limit, of: map[string]int{}} }

// enter admits a request, whose end leave is told of, or refuses it.
func (g *gate) enter(server string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of[server] >= (g.max-g.total)/share {
		return false
	}
	g.total++
	g.of[server]++
	return true
}

func (g *gate) leave(server string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.of[server]--; g.of[server] == 0 {
		delete(g.of, server)
	}
}

// inWork is how many are in work now.
func (g *gate) inWork() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total
}

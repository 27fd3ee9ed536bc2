package federation

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// maxInFlight bounds how many questions one server is asked at once.
	maxInFlight = 32
	// breakAfter consecutive failures a server is left alone for a while.
	breakAfter = 5
	firstPause = time.Second
	maxPause   = 30 * time.Second
	// maxPeers bounds how many servers are kept account of.
	maxPeers = 1024
)

// errPaused is returned while a server that kept failing is left alone.
var errPaused = errors.New("the server failed repeatedly and is left alone for a moment")

// peers keeps account of each server, so that one that is slow or down delays
// only those who ask for it.
type peers struct {
	now func() time.Time

	mu    sync.Mutex
	known map[string]*peer
}

// peer is one server: how many questions are under way, how often it failed
// in a row, and until when it is left alone.
type peer struct {
	slots chan struct{} // as many as may be under way; full means wait

	mu       sync.Mutex
	failures int
	pause    time.Duration
	until    time.Time
	probing  bool
}

func newPeers(now func() time.Time) *peers {
	return &peers{now: now, known: map[string]*peer{}}
}

func (ps *peers) get(serverName string) *peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p, ok := ps.known[serverName]; ok {
		return p
	}
	if len(ps.known) >= maxPeers {
		for name, p := range ps.known {
			if len(p.slots) == 0 {
				delete(ps.known, name)
				break
			}
		}
	}
	p := &peer{slots: make(chan struct{}, maxInFlight)}
	ps.known[serverName] = p
	return p
}

// paused counts the servers that are left alone now.
func (ps *peers) paused() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	n := 0
	for _, p := range ps.known {
		p.mu.Lock()
		if ps.now().Before(p.until) {
			n++
		}
		p.mu.Unlock()
	}
	return n
}

// enter waits for a turn. The returned function ends the turn and is told
// whether the server answered.
func (ps *peers) enter(ctx context.Context, serverName string) (leave func(answered bool), err error) {
	p := ps.get(serverName)
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if !p.mayAsk(ps.now()) {
		<-p.slots
		return nil, errPaused
	}
	return func(answered bool) {
		p.report(answered, ps.now())
		<-p.slots
	}, nil
}

// mayAsk is false during a pause. After it one question goes out to probe, and
// the others wait for what becomes of it.
func (p *peer) mayAsk(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failures < breakAfter {
		return true
	}
	if p.probing || now.Before(p.until) {
		return false
	}
	p.probing = true
	return true
}

func (p *peer) report(answered bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probing = false
	if answered {
		p.failures, p.pause, p.until = 0, 0, time.Time{}
		return
	}
	p.failures++
	if p.failures < breakAfter {
		return
	}
	// Half of the pause is left to chance, so that replicas do not probe
	// together.
	p.pause = min(max(firstPause, 2*p.pause), maxPause)
	p.until = now.Add(p.pause/2 + rand.N(p.pause/2))
}

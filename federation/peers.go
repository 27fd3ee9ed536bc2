package federation

import (
	"container/list"
	"context"
	"errors"
	"sync"
)

const (
	// maxInFlight bounds how many questions one server is asked at once.
	maxInFlight = 32
	// maxPeers bounds how many servers are kept account of. Rules with globs
	// allow more names than anybody can count. It is no less than the requests
	// that are in work at once, so that nobody is turned away for it.
	maxPeers = 4096
)

var (
	// errPaused is returned while a server that kept failing is left alone.
	errPaused = errors.New("it failed repeatedly and is left alone for a moment")
	// errCrowded is returned when questions to as many servers as are kept
	// account of are under way.
	errCrowded = errors.New("too many other servers are being asked")
)

// peers keeps account of the servers that were asked last.
type peers struct {
	max int
	// insist: failures do not keep a server from being asked.
	insist bool

	mu    sync.Mutex
	known map[string]*list.Element // of *peer, by name
	order *list.List               // the one asked last is in front
}

// peer is one server: the questions under way, whether it is fit to be asked,
// and where it is.
type peer struct {
	// name is in lower case: the same server spelled otherwise is still one.
	name string
	// slots holds a value for each question under way; a full one makes the
	// next wait. Who puts a value in takes one out.
	slots   chan struct{}
	breaker breaker
	home    home

	users int // guarded by peers.mu; only a peer without any is forgotten
}

func newPeers(limit int) *peers {
	return &peers{max: limit, known: map[string]*list.Element{}, order: list.New()}
}

// acquire returns the account of a server. The caller releases it.
func (ps *peers) acquire(name string) (*peer, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if element, ok := ps.known[name]; ok {
		ps.order.MoveToFront(element)
		p := element.Value.(*peer)
		p.users++
		return p, nil
	}
	if len(ps.known) >= ps.max && !ps.forgetOldest() {
		return nil, errCrowded
	}
	p := &peer{name: name, slots: make(chan struct{}, maxInFlight), home: newHome(name), users: 1}
	p.breaker.off = ps.insist
	ps.known[name] = ps.order.PushFront(p)
	return p, nil
}

func (ps *peers) release(p *peer) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.users--
}

func (ps *peers) forgetOldest() bool {
	for element := ps.order.Back(); element != nil; element = element.Prev() {
		if p := element.Value.(*peer); p.users == 0 {
			ps.order.Remove(element)
			delete(ps.known, p.name)
			return true
		}
	}
	return false
}

// count returns how many servers are in a state.
func (ps *peers) count(state breakerState) int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	n := 0
	for element := ps.order.Front(); element != nil; element = element.Next() {
		if element.Value.(*peer).breaker.state() == state {
			n++
		}
	}
	return n
}

// enter waits for a turn. A server that is left alone is refused at once, not
// after the wait. The returned function ends the turn with a verdict and tells
// whether that changed whether the server is asked.
func (p *peer) enter(ctx context.Context) (leave func(verdict) (changed bool), err error) {
	if p.breaker.refuses() {
		return nil, errPaused
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	probe, ok := p.breaker.admit()
	if !ok {
		<-p.slots
		return nil, errPaused
	}
	return func(v verdict) bool {
		defer func() { <-p.slots }()
		return p.breaker.report(v, probe)
	}, nil
}

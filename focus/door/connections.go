package door

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"passerelle/focus/matrixrtc"
)

// who names whose connections they are.
type who struct {
	room     matrixrtc.SFURoom
	identity matrixrtc.Identity
}

// connections are all that were let in and have not ended.
type connections struct {
	mu   sync.Mutex
	open map[who]map[*connection]struct{}
	// cuts counts the calls of Cut: who was let in by a decision from before
	// one is asked about again.
	cuts     uint64
	stopping bool
	running  sync.WaitGroup
}

// connection is one request that was let in. It is a signalling connection
// once client and sfu are set.
type connection struct {
	door *Door
	who  who
	// ctx ends when the connection is to end before it is one.
	ctx    context.Context
	cancel context.CancelFunc

	mu          sync.Mutex
	client, sfu net.Conn
	// over is when everything must have ended; zero while it goes on.
	over time.Time
	// code is the WebSocket close code (RFC 6455, 7.4) that the client is sent,
	// 0 if none.
	code closeCode
	// lost: the client did not take what it was sent.
	lost bool
}

type outcome int

const (
	entered outcome = iota
	again
	stopping
)

func (c *connections) revocations() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts
}

// enter registers what was let in by a decision from when there had been so
// many cuts.
func (d *Door) enter(ctx context.Context, w who, cuts uint64) (*connection, outcome) {
	all := &d.connections
	all.mu.Lock()
	defer all.mu.Unlock()
	switch {
	case all.stopping:
		return nil, stopping
	case all.cuts != cuts:
		return nil, again
	}
	c := &connection{door: d, who: w}
	c.ctx, c.cancel = context.WithCancel(ctx)
	if all.open[w] == nil {
		all.open[w] = map[*connection]struct{}{}
	}
	all.open[w][c] = struct{}{}
	all.running.Add(1)
	d.metrics.sockets.Inc()
	return c, entered
}

// leave is the end of a connection.
func (c *connection) leave() {
	all := &c.door.connections
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.open[c.who], c)
	if len(all.open[c.who]) == 0 {
		delete(all.open, c.who)
	}
	all.running.Done()
	c.door.metrics.sockets.Dec()
}

// settle ends what has not become a signalling connection.
func (c *connection) settle() {
	c.mu.Lock()
	connected := c.client != nil
	c.mu.Unlock()
	// From here on the request is over, and with it its context.
	c.cancel()
	if !connected {
		c.leave()
	}
}

func (c *connection) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code == closePolicy
}

// Cut ends the participant's connections and keeps those out that are about to
// come in by a decision from before. Call it after the revocation is committed.
// From that moment nothing of the client passes; what the SFU has to say to it
// last still does, for [farewell] at most.
func (d *Door) Cut(room matrixrtc.SFURoom, identity matrixrtc.Identity) {
	all := &d.connections
	all.mu.Lock()
	all.cuts++
	var cut []*connection
	for c := range all.open[who{room, identity}] {
		cut = append(cut, c)
	}
	all.mu.Unlock()
	for _, c := range cut {
		c.finish(closePolicy, farewell)
	}
}

// Stop waits until all connections have ended by themselves, or ctx is done and
// it ends them. Nobody is let in any more.
func (d *Door) Stop(ctx context.Context) error {
	all := &d.connections
	all.mu.Lock()
	all.stopping = true
	all.mu.Unlock()
	done := make(chan struct{})
	go func() { all.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	all.mu.Lock()
	var left []*connection
	for _, some := range all.open {
		for c := range some {
			left = append(left, c)
		}
	}
	all.mu.Unlock()
	for _, c := range left {
		c.finish(closeGoingAway, 0)
	}
	select {
	case <-done:
		return nil
	case <-time.After(2 * lingerTime):
		return errors.New("signalling connections still open")
	}
}

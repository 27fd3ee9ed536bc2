// Package wire gives a program a network of its own, which reaches a few
// addresses of this machine and nothing else, and which can be cut. It takes
// the right to make network namespaces, which root has.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Route is an address that a program in the network can reach.
type Route struct {
	// Network is tcp or udp.
	Network string
	// Inside is the address (host:port) as the program knows it, Outside where
	// that is on this machine.
	Inside, Outside string
}

// Wire is one such network.
type Wire struct {
	starts chan start
	ending chan struct{}
	ended  sync.WaitGroup

	mu      sync.Mutex
	whole   chan struct{} // closed while the wire is not cut
	closers []func()      // nil once the wire is closed
}

type start struct {
	command *exec.Cmd
	done    chan error
}

// errClosed is what a wire says that is no more.
var errClosed = errors.New("the wire is closed")

// New makes a network with these routes and nothing else.
func New(routes ...Route) (*Wire, error) {
	w := &Wire{starts: make(chan start), ending: make(chan struct{}), whole: make(chan struct{}), closers: []func(){}}
	close(w.whole)
	ready := make(chan error, 1)
	w.ended.Go(func() { w.inside(routes, ready) })
	if err := <-ready; err != nil {
		w.Close()
		return nil, fmt.Errorf("make a network: %w", err)
	}
	return w, nil
}

// inside runs in the network: the namespace is that of the thread, and of the
// sockets and processes that are made on it.
func (w *Wire) inside(routes []Route, ready chan<- error) {
	// It is never unlocked: the thread ends with the goroutine. It lives as
	// long as the programs that it started, which the kernel kills with it.
	runtime.LockOSThread()
	if err := w.open(routes); err != nil {
		ready <- err
		return
	}
	ready <- nil
	for {
		select {
		case s := <-w.starts:
			s.done <- s.command.Start()
		case <-w.ending:
			return
		}
	}
}

func (w *Wire) open(routes []Route) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := w.raise(); err != nil {
		return fmt.Errorf("raise interfaces: %w", err)
	}
	for _, route := range routes {
		if err := w.lay(route); err != nil {
			return err
		}
	}
	return nil
}

// lay opens the inner end of a route; what follows is outside.
func (w *Wire) lay(route Route) error {
	if route.Network == "tcp" {
		listener, err := net.Listen("tcp", route.Inside)
		if err != nil {
			return err
		}
		w.own(func() { _ = listener.Close() })
		w.ended.Go(func() { w.accept(listener, route.Outside) })
		return nil
	}
	inside, err := net.ResolveUDPAddr("udp", route.Inside)
	if err != nil {
		return err
	}
	outside, err := net.ResolveUDPAddr("udp", route.Outside)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", inside)
	if err != nil {
		return err
	}
	w.own(func() { _ = conn.Close() })
	w.ended.Go(func() { w.relay(conn, outside) })
	return nil
}

// Start starts a program in the network. It is killed when the wire is closed.
func (w *Wire) Start(command *exec.Cmd) error {
	s := start{command, make(chan error, 1)}
	select {
	case w.starts <- s:
		return <-s.done
	case <-w.ending:
		return errClosed
	}
}

// Cut lets nothing pass any more, and tells nobody: what is sent over a
// connection waits, and packets are lost.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.whole:
		w.whole = make(chan struct{})
	default:
	}
}

// Mend undoes Cut.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.whole:
	default:
		close(w.whole)
	}
}

// Close ends the network, what runs in it, and every connection.
func (w *Wire) Close() {
	w.mu.Lock()
	closers := w.closers
	w.closers = nil
	w.mu.Unlock()
	if closers == nil {
		return
	}
	close(w.ending)
	for _, closer := range closers {
		closer()
	}
	w.Mend()
	w.ended.Wait()
}

// own has Close call closer; at once, if the wire is closed already.
func (w *Wire) own(closer func()) {
	w.mu.Lock()
	open := w.closers != nil
	if open {
		w.closers = append(w.closers, closer)
	}
	w.mu.Unlock()
	if !open {
		closer()
	}
}

func (w *Wire) gate() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.whole
}

func (w *Wire) passes() bool {
	select {
	case <-w.gate():
		return true
	default:
		return false
	}
}

// accept passes connections on.
func (w *Wire) accept(listener net.Listener, outside string) {
	for {
		inner, err := listener.Accept()
		if err != nil {
			return
		}
		w.own(func() { _ = inner.Close() })
		w.ended.Go(func() {
			defer inner.Close()
			<-w.gate()
			// The dialer's sockets are made on other threads, and so outside.
			outer, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", outside)
			if err != nil {
				return
			}
			w.own(func() { _ = outer.Close() })
			w.ended.Go(func() { w.pass(outer, inner) })
			w.pass(inner, outer)
		})
	}
}

// pass copies one direction of a connection, and closes both with its end.
func (w *Wire) pass(from, to net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		<-w.gate()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// relay passes packets on, and those that come back to whoever sent the first.
func (w *Wire) relay(inner *net.UDPConn, to *net.UDPAddr) {
	outers := map[string]*net.UDPConn{}
	buffer := make([]byte, 2048)
	for {
		n, from, err := inner.ReadFromUDP(buffer)
		if err != nil {
			return
		}
		outer, known := outers[from.String()]
		if !known {
			// Not connected: a server on every address may answer from another.
			if outer, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
				return
			}
			outers[from.String()] = outer
			w.own(func() { _ = outer.Close() })
			w.ended.Go(func() { w.back(outer, inner, from) })
		}
		if w.passes() {
			_, _ = outer.WriteToUDP(buffer[:n], to)
		}
	}
}

func (w *Wire) back(outer, inner *net.UDPConn, to *net.UDPAddr) {
	buffer := make([]byte, 2048)
	for {
		n, err := outer.Read(buffer)
		if err != nil {
			return
		}
		if w.passes() {
			_, _ = inner.WriteToUDP(buffer[:n], to)
		}
	}
}

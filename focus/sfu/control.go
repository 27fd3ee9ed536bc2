package sfu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

const (
	// socketFile is the control socket, in the data folder.
	socketFile = "sfu.sock"
	// protocol is the version of what is said on it.
	protocol = 1
	// maxLine bounds one line on it.
	maxLine = 4096
	// maxLeashes bounds how many hold a child at once. One does; a second one
	// is there for moments.
	maxLeashes = 8
)

// hello is the line that a child writes to each leash, twice: when it is
// connected, and when it can take participants.
type hello struct {
	Protocol    int       `json:"protocol"`
	PID         int       `json:"pid"`
	Fingerprint string    `json:"fingerprint"`
	Port        int       `json:"port"`
	StartedAt   time.Time `json:"started_at"`
	Ready       bool      `json:"ready"`
}

// socketPath names the socket through the opened folder: the address of a
// Unix socket has room for 107 bytes only, and folders can be deeper.
func socketPath(dir *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + socketFile
}

// Control is the child's end of the control socket. Its methods may be called
// by any goroutine.
type Control struct {
	dir       *os.File
	listener  net.Listener
	settings  Settings
	startedAt time.Time
	ready     chan struct{} // closed when the child can take participants
	conns     sync.WaitGroup

	mu      sync.Mutex
	leashes int
	// orphan fires when no leash was held for the orphan timeout.
	orphan *time.Timer
}

// NewControl makes the control socket of a child. A socket that a dead child
// left behind is removed; that of a living one is an error. Call Serve next.
func NewControl(s Settings) (*Control, error) {
	dir, err := os.Open(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if conn, err := net.Dial("unix", socketPath(dir)); err == nil {
		return nil, errors.Join(errors.New("control socket: another SFU runs in this folder"), conn.Close(), dir.Close())
	}
	if err := os.Remove(filepath.Join(s.Dir, socketFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), dir.Close())
	}
	listener, err := net.Listen("unix", socketPath(dir))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), dir.Close())
	}
	if err := os.Chmod(filepath.Join(s.Dir, socketFile), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), listener.Close(), dir.Close())
	}
	return &Control{
		dir: dir, listener: listener, settings: s,
		startedAt: time.Now().UTC(),
		ready:     make(chan struct{}),
		orphan:    time.NewTimer(s.OrphanTimeout),
	}, nil
}

// Ready tells all leashes that the child can take participants. Call it once.
func (c *Control) Ready() { close(c.ready) }

// Orphaned delivers once no leash was held for the orphan timeout.
func (c *Control) Orphaned() <-chan time.Time { return c.orphan.C }

// Serve holds leashes until ctx is done, and removes the socket then.
func (c *Control) Serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = c.listener.Close() })
	defer stop()
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			break
		}
		if !c.take() {
			_ = conn.Close()
			continue
		}
		c.conns.Go(func() { c.hold(ctx, conn) })
	}
	c.conns.Wait()
	_ = c.dir.Close()
}

// hold keeps one leash until the other end lets go.
func (c *Control) hold(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer c.release()
	defer conn.Close()
	gone := make(chan struct{})
	c.conns.Go(func() {
		defer close(gone)
		// Nothing is expected; what comes is thrown away.
		_, _ = io.Copy(io.Discard, conn)
	})
	h := hello{
		Protocol: protocol, PID: os.Getpid(), Fingerprint: c.settings.Fingerprint(),
		Port: c.settings.Port, StartedAt: c.startedAt,
	}
	if !say(conn, h) {
		return
	}
	select {
	case <-c.ready:
	case <-gone:
		return
	}
	h.Ready = true
	if say(conn, h) {
		<-gone
	}
}

func say(conn net.Conn, h hello) bool {
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	return json.NewEncoder(conn).Encode(h) == nil
}

// take counts a leash, unless there are enough.
func (c *Control) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leashes == maxLeashes {
		return false
	}
	c.leashes++
	c.orphan.Stop()
	return true
}

func (c *Control) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leashes--; c.leashes == 0 {
		c.orphan.Reset(c.settings.OrphanTimeout)
	}
}

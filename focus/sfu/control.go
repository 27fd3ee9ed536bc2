package sfu

import (
	"bufio"
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

// socketFile is the control socket, in the data folder.
const socketFile = "sfu.sock"

// maxLine bounds one line on the control socket.
const maxLine = 4096

// hello is the line that a child writes to each leash, twice: when it is
// connected, and when it can take participants.
type hello struct {
	PID         int    `json:"pid"`
	Fingerprint string `json:"fingerprint"`
	Ready       bool   `json:"ready"`
}

// socketPath names the socket through the opened folder: the address of a
// Unix socket has room for 107 bytes only, and folders can be deeper.
func socketPath(dir *os.File) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + socketFile
}

// Control is the child's end of the control socket.
type Control struct {
	dir      *os.File
	listener net.Listener
	settings Settings
	conns    sync.WaitGroup

	mu      sync.Mutex
	ready   chan struct{} // closed when the child can take participants
	leashes int
	// orphan fires when no leash was held for the orphan timeout.
	orphan *time.Timer
}

// NewControl makes the control socket of a child. A socket that a dead child
// left behind is removed; that of a living one is an error.
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
	if err == nil {
		err = os.Chmod(filepath.Join(s.Dir, socketFile), 0o600)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), dir.Close())
	}
	return &Control{
		dir: dir, listener: listener, settings: s,
		ready:  make(chan struct{}),
		orphan: time.NewTimer(s.OrphanTimeout),
	}, nil
}

// Ready tells all leashes that the child can take participants. Call it once.
func (c *Control) Ready() { close(c.ready) }

// Orphaned delivers once no leash was held for the orphan timeout.
func (c *Control) Orphaned() <-chan time.Time { return c.orphan.C }

// Serve holds leashes until ctx is done.
func (c *Control) Serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = c.listener.Close() })
	defer stop()
	for {
		conn, err := c.listener.Accept()
		if err != nil {
			break
		}
		c.conns.Go(func() { c.hold(ctx, conn) })
	}
	c.conns.Wait()
	_ = c.dir.Close()
}

// hold keeps one leash until the other end lets go.
func (c *Control) hold(ctx context.Context, conn net.Conn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close()
	c.count(1)
	defer c.count(-1)
	gone := make(chan struct{})
	c.conns.Go(func() {
		defer close(gone)
		// Nothing is expected; what comes is thrown away.
		_, _ = io.Copy(io.Discard, conn)
	})
	h := hello{PID: os.Getpid(), Fingerprint: c.settings.Fingerprint()}
	if !c.say(conn, h) {
		return
	}
	select {
	case <-c.ready:
	case <-gone:
		return
	}
	h.Ready = true
	if c.say(conn, h) {
		<-gone
	}
}

func (c *Control) say(conn net.Conn, h hello) bool {
	_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	return json.NewEncoder(conn).Encode(h) == nil
}

func (c *Control) count(change int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leashes += change
	if c.leashes > 0 {
		c.orphan.Stop()
	} else {
		c.orphan.Reset(c.settings.OrphanTimeout)
	}
}

// leash is the parent's end: its connection ends when the child does.
type leash struct {
	conn  *net.UnixConn
	hello hello
	// ready is closed when the child can take participants, gone when the
	// connection has ended.
	ready chan struct{}
	gone  chan struct{}
}

// errNoChild is returned when nobody holds the control socket.
var errNoChild = errors.New("no SFU is running")

// connect takes a child's leash and reads its first line. What follows is read
// by a goroutine that ends with the connection.
func connect(ctx context.Context, dir *os.File) (*leash, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socketPath(dir))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoChild, err)
	}
	l := &leash{conn: conn.(*net.UnixConn), ready: make(chan struct{}), gone: make(chan struct{})}
	lines := bufio.NewReaderSize(conn, maxLine)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	l.hello, err = readHello(lines)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go l.listen(lines)
	return l, nil
}

// listen reads until the child is gone.
func (l *leash) listen(lines *bufio.Reader) {
	defer close(l.gone)
	for last := l.hello; ; {
		if last.Ready {
			close(l.ready)
			break
		}
		var err error
		if last, err = readHello(lines); err != nil {
			return
		}
	}
	_, _ = io.Copy(io.Discard, lines)
}

func readHello(lines *bufio.Reader) (h hello, err error) {
	line, err := lines.ReadSlice('\n')
	if err != nil {
		return h, fmt.Errorf("listen to the SFU: %w", err)
	}
	if err := json.Unmarshal(line, &h); err != nil || h.PID <= 0 {
		return h, errors.New("listen to the SFU: what holds its control socket does not speak its language")
	}
	return h, nil
}

// awaitReady returns once the child can take participants.
func (l *leash) awaitReady(ctx context.Context) error {
	select {
	case <-l.ready:
		return nil
	case <-l.gone:
		return errors.New("it ended while it started")
	case <-ctx.Done():
		return ctx.Err()
	}
}

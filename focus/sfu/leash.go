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
	"syscall"
	"time"
)

// helloTimeout is how long a child may take for its first line, which it
// writes at once.
const helloTimeout = 3 * time.Second

var (
	// errNoChild is returned when nobody holds the control socket.
	errNoChild = errors.New("no SFU is running")
	// errLanguage is returned when what holds it is no child of this version.
	errLanguage = errors.New("what holds the SFU's control socket does not speak its language")
	// errLetGo is returned when a child ends before it is ready.
	errLetGo = errors.New("it ended while it started")
)

// leash is the parent's end: its connection ends when the child does.
type leash struct {
	conn *net.UnixConn
	// first delivers the child's first line, once.
	first chan greeting
	// ready is closed when the child can take participants, gone when the
	// connection has ended.
	ready chan struct{}
	gone  chan struct{}
}

type greeting struct {
	hello hello
	err   error
}

// connect takes a child's leash. A goroutine reads it and ends with the
// connection.
func connect(ctx context.Context, dir *os.File) (*leash, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socketPath(dir))
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %w", errNoChild, err)
	case err != nil:
		return nil, fmt.Errorf("reach the SFU: %w", err)
	}
	l := &leash{
		conn:  conn.(*net.UnixConn),
		first: make(chan greeting, 1),
		ready: make(chan struct{}),
		gone:  make(chan struct{}),
	}
	go l.listen()
	return l, nil
}

// listen reads until the child is gone. Nothing that it does not understand
// makes it end earlier.
func (l *leash) listen() {
	defer close(l.gone)
	lines := bufio.NewReaderSize(l.conn, maxLine)
	h, err := readHello(lines)
	l.first <- greeting{h, err}
	for err == nil && !h.Ready {
		h, err = readHello(lines)
	}
	if err == nil {
		close(l.ready)
	}
	_, _ = io.Copy(io.Discard, lines)
}

func readHello(lines *bufio.Reader) (h hello, err error) {
	line, err := lines.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return h, errLanguage
	case err != nil:
		return h, fmt.Errorf("listen to the SFU: %w", err)
	}
	if json.Unmarshal(line, &h) != nil || h.Protocol != protocol || h.PID <= 0 {
		return h, errLanguage
	}
	return h, nil
}

// greet returns the child's first line. Call it once.
func (l *leash) greet(ctx context.Context) (hello, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helloTimeout, errLanguage)
	defer cancel()
	select {
	case g := <-l.first:
		return g.hello, g.err
	case <-ctx.Done():
		return hello{}, context.Cause(ctx)
	}
}

// awaitReady returns once the child can take participants.
func (l *leash) awaitReady(ctx context.Context) error {
	select {
	case <-l.ready:
		return nil
	case <-l.gone:
		return errLetGo
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

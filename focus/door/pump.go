package door

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const (
	// maxUp is the longest message that a client may send. LiveKit holds it
	// whole; the longest honest ones, session descriptions of large calls, are
	// some hundred KiB.
	maxUp = 2 << 20
	// maxDown is the longest that an SFU may send: the first answer in a call
	// of thousands names everybody.
	maxDown = 16 << 20
	// idle ends a connection of which one side says nothing. LiveKit sends a
	// ping each 10 s, which browsers answer by themselves, and its clients ask
	// each 5 s, so three were missed.
	idle = 30 * time.Second
	// writeTimeout is how long one side may take to accept a buffer.
	writeTimeout = 10 * time.Second
	// pumpBuffer is the memory of one direction. Most messages fit.
	pumpBuffer = 2 << 10
	// farewell is how long the SFU's last words to a client that was cut may
	// take. On a busy machine that is some hundred milliseconds, and a client that
	// was not told tries to come back for a minute and more.
	farewell = 500 * time.Millisecond
	// lastWrite is how long a side may take to accept a buffer when everything
	// ends.
	lastWrite = 500 * time.Millisecond
	// lingerTime and lingerBytes bound the wait for a client to take notice of
	// the end. A connection that is closed with unread bytes is reset, and the
	// last words might be lost with it.
	lingerTime  = time.Second
	lingerBytes = 8 << 20
)

// attach gives the connection its two sides, unless it is to end already.
func (c *connection) attach(client, sfu net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over.IsZero() {
		return false
	}
	c.client, c.sfu = client, sfu
	return true
}

// finish ends the connection, after a time in which the SFU is still heard. The
// first call decides.
func (c *connection) finish(code closeCode, after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over.IsZero() {
		return
	}
	c.over, c.code = time.Now().Add(after), code
	c.cancel()
	if c.client == nil {
		return
	}
	_ = c.client.SetReadDeadline(time.Unix(1, 0))
	_ = c.sfu.SetReadDeadline(c.over)
	// Who is writing to a side that takes nothing ends soon, too.
	_ = c.client.SetWriteDeadline(c.over.Add(lastWrite))
	_ = c.sfu.SetWriteDeadline(c.over.Add(lastWrite))
}

// arm sets the time for the next read from a side.
func (c *connection) arm(from net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over.IsZero():
		_ = from.SetReadDeadline(time.Now().Add(idle))
	case from == c.client:
		return false
	default:
		_ = from.SetReadDeadline(c.over)
	}
	return true
}

// pump starts both directions. first is what the client gets before anything
// else; fromClient and fromSFU are what was read too early.
func (c *connection) pump(first, fromClient, fromSFU []byte) {
	upDone := make(chan struct{})
	go func() {
		defer close(upDone)
		c.finish(c.copy(c.sfu, c.client, &frames{masked: true, limit: maxUp}, fromClient), 0)
	}()
	go func() {
		defer c.leave()
		down := &frames{limit: maxDown}
		code := closeCode(0)
		if c.write(c.client, first) == nil {
			code = c.copy(c.client, c.sfu, down, fromSFU)
		}
		c.finish(code, 0)
		_ = c.sfu.Close()
		<-upDone
		c.goodbye(down.speakable())
	}()
}

// copy passes on what from says until it ends, and returns the close code for
// the client: 0 when the two have ended it between themselves.
func (c *connection) copy(to, from net.Conn, look *frames, early []byte) closeCode {
	buffer := make([]byte, pumpBuffer)
	for chunk := early; ; {
		ok, code := look.check(chunk)
		if ok > 0 && c.write(to, chunk[:ok]) != nil {
			return 0
		}
		if code != 0 {
			return code
		}
		if !c.arm(from) {
			return 0
		}
		n, err := from.Read(buffer)
		chunk = buffer[:n]
		if n == 0 && err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return closeGoingAway
			}
			return 0
		}
	}
}

func (c *connection) write(to net.Conn, b []byte) error {
	c.mu.Lock()
	until := time.Now().Add(writeTimeout)
	if !c.over.IsZero() {
		until = c.over.Add(lastWrite)
	}
	_ = to.SetWriteDeadline(until)
	c.mu.Unlock()
	_, err := to.Write(b)
	if err != nil && to == c.client {
		c.mu.Lock()
		c.lost = true
		c.mu.Unlock()
	}
	return err
}

// goodbye tells the client why, where there is something to be told and its
// side is not in the middle of a frame, and closes its side. Both pumps have
// ended, or this is the last of them.
func (c *connection) goodbye(speakable bool) {
	defer c.client.Close()
	c.mu.Lock()
	code, lost := c.code, c.lost
	c.mu.Unlock()
	if code != 0 {
		c.door.metrics.ended.WithLabelValues(endings[code]).Inc()
	}
	if lost {
		return // in the middle of a frame, to who takes no more
	}
	_ = c.client.SetDeadline(time.Now().Add(lingerTime))
	if code != 0 && speakable {
		_, _ = c.client.Write(closeFrame(code))
	}
	if half, ok := c.client.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.client, lingerBytes)
	}
}

// endings are the values of the metric's label.
var endings = map[closeCode]string{
	closeGoingAway: "silent_or_stopped", closeProtocol: "protocol", closePolicy: "revoked", closeTooBig: "too_big",
}

package door

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// frame is one of a client, or of a server if it is not masked.
func frame(first byte, masked bool, length int) []byte {
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	head := []byte{first}
	switch {
	case length <= 125:
		head = append(head, mask|byte(length))
	case length <= 0xffff:
		head = binary.BigEndian.AppendUint16(append(head, mask|126), uint16(length))
	default:
		head = binary.BigEndian.AppendUint64(append(head, mask|127), uint64(length))
	}
	if masked {
		head = append(head, 1, 2, 3, 4)
	}
	return append(head, make([]byte, length)...)
}

const (
	whole = 0x82 // binary, final
	first = 0x02 // binary, more comes
	more  = 0x00 // continuation, more comes
	last  = 0x80 // continuation, final
	ping  = 0x89
)

func TestFrames(t *testing.T) {
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	good := join(frame(whole, true, 10), frame(first, true, 0), frame(ping, true, 125), frame(last, true, 3))
	for name, c := range map[string]struct {
		bytes []byte
		pass  int
		code  closeCode
	}{
		"nothing":                     {nil, 0, 0},
		"good ones":                   {good, len(good), 0},
		"of the longest":              {frame(whole, true, 1000), 1008, 0},
		"one byte more":               {frame(whole, true, 1001), 0, closeTooBig},
		"64 bits of length":           {join([]byte{whole, 0xff}, bytes.Repeat([]byte{0xff}, 12)), 0, closeTooBig},
		"too long in pieces":          {join(frame(first, true, 500), frame(more, true, 400), frame(last, true, 101)), 506 + 2 + 408, closeTooBig},
		"after a good one":            {join(good, frame(whole, true, 1001)), len(good), closeTooBig},
		"lengths do not add up":       {join(frame(whole, true, 900), frame(whole, true, 900)), 2 * 908, 0},
		"not masked":                  {frame(whole, false, 1), 0, closeProtocol},
		"compressed":                  {frame(whole|0x40, true, 1), 0, closeProtocol},
		"an unknown kind":             {frame(0x83, true, 1), 0, closeProtocol},
		"an unknown control frame":    {frame(0x8b, true, 1), 0, closeProtocol},
		"a long control frame":        {frame(ping, true, 126), 0, closeProtocol},
		"half a control frame":        {frame(0x09, true, 1), 0, closeProtocol},
		"continues nothing":           {frame(last, true, 1), 0, closeProtocol},
		"a message inside of another": {join(frame(first, true, 1), frame(whole, true, 1)), 7, closeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			f := frames{masked: true, limit: 1000}
			pass, code := f.check(c.bytes)
			require.Equal(t, c.pass, pass)
			require.Equal(t, c.code, code)
		})
	}
}

// However the bytes are cut, the decision is the same, and never is more passed
// on than with all of them at once.
func FuzzFrames(f *testing.F) {
	f.Add(frame(whole, true, 10), byte(3), true)
	f.Add(append(frame(first, true, 300), frame(last, true, 900)...), byte(1), true)
	f.Add(frame(ping, false, 5), byte(2), false)
	f.Fuzz(func(t *testing.T, stream []byte, step byte, masked bool) {
		all := frames{masked: masked, limit: 1000}
		pass, code := all.check(stream)
		if pass > len(stream) || (code == 0) != (pass == len(stream)) && !(code != 0 && pass < len(stream)) {
			t.Fatalf("passes %d of %d with code %d", pass, len(stream), code)
		}
		cut, passed := frames{masked: masked, limit: 1000}, 0
		for at := 0; at < len(stream); {
			end := min(len(stream), at+int(step%16)+1)
			n, c := cut.check(stream[at:end])
			passed += n
			if c != 0 {
				if c != code {
					t.Fatalf("in pieces %d, at once %d", c, code)
				}
				// Of a bad frame's head some bytes may have gone before it was whole.
				if passed < pass || passed > pass+len(cut.head) {
					t.Fatalf("in pieces %d bytes pass, at once %d", passed, pass)
				}
				return
			}
			at = end
		}
		if code != 0 {
			t.Fatalf("in pieces nothing is wrong, at once %d", code)
		}
	})
}

// pipes is a connection between two pipes, whose other ends are returned.
func pipes(t *testing.T) (client, sfu net.Conn) {
	t.Helper()
	d := New(Options{Log: zerolog.Nop(), Registerer: prometheus.NewRegistry()})
	c, outcome := d.enter(t.Context(), who{"room", "ana"}, 0)
	require.Equal(t, entered, outcome)
	client, inside := net.Pipe()
	sfu, outside := net.Pipe()
	require.True(t, c.attach(inside, outside))
	c.pump(nil, nil, nil)
	return client, sfu
}

// read takes what comes until the end.
func read(conn net.Conn, into chan<- []byte) {
	var all []byte
	buffer := make([]byte, 1024)
	for {
		n, err := conn.Read(buffer)
		all = append(all, buffer[:n]...)
		if err != nil {
			into <- all
			return
		}
	}
}

// A side that says nothing for half a minute is gone; one that answers pings
// stays for as long as it likes.
func TestSilence(t *testing.T) {
	for name, silent := range map[string]string{"client": "client", "SFU": "sfu"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, sfu := pipes(t)
				heard, ignored := make(chan []byte, 1), make(chan []byte, 1)
				go read(client, heard)
				go read(sfu, ignored)
				began, pongs := time.Now(), 0
				alive := func(until time.Duration, talk bool) {
					for time.Since(began) < until {
						time.Sleep(10 * time.Second)
						if talk || silent == "sfu" {
							_, _ = client.Write(frame(0x8a, true, 0))
						}
						if talk || silent == "client" {
							_, _ = sfu.Write(frame(ping, false, 0))
							pongs++
						}
					}
				}
				alive(10*time.Minute, true)
				require.Empty(t, heard, "both talk")
				alive(10*time.Minute+29*time.Second, false)
				all := <-heard
				require.Less(t, time.Since(began), 10*time.Minute+45*time.Second)
				require.Equal(t, closeFrame(closeGoingAway), all[len(all)-4:], "and is told so, in case it lives")
				<-ignored
			})
		})
	}
}

// Nothing is said in the middle of a frame, and nothing after the last word.
func TestNoWordTooMuch(t *testing.T) {
	for name, said := range map[string][]byte{
		"in the middle of a frame": frame(whole, false, 100)[:50],
		"after a close frame":      closeFrame(1000),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, sfu := pipes(t)
				heard, ignored := make(chan []byte, 1), make(chan []byte, 1)
				go read(client, heard)
				go read(sfu, ignored)
				_, err := sfu.Write(said)
				require.NoError(t, err)
				_, err = client.Write(frame(0x83, true, 0)) // an unknown kind
				require.NoError(t, err)
				require.Equal(t, said, <-heard)
				require.Empty(t, <-ignored)
			})
		})
	}
}

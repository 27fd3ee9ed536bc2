package door

import "encoding/binary"

// closeCode is a WebSocket close code (RFC 6455, 7.4.1).
type closeCode uint16

const (
	closeGoingAway closeCode = 1001
	closeProtocol  closeCode = 1002
	closePolicy    closeCode = 1008
	closeTooBig    closeCode = 1009
)

const (
	opContinuation = 0x0
	opBinary       = 0x2
	opClose        = 0x8
	opPong         = 0xa
	// maxControl is the longest payload of a control frame (RFC 6455, 5.5).
	maxControl = 125
)

// frames follows one direction of a WebSocket (RFC 6455, 5.2) without holding
// any of it: it looks at the frames' heads and counts their payloads.
type frames struct {
	// masked: this is the direction from the client, whose frames are.
	masked bool
	// limit is the longest message, in bytes.
	limit uint64

	head [14]byte
	have int    // bytes of the head so far
	left uint64 // bytes of the payload to come
	// message is the length so far of a message in several frames.
	message    uint64
	fragmented bool
	// closed: a close frame has come; there is nothing to be said after it.
	closed bool
}

// check looks at the next bytes. It returns how many of them may be passed on,
// and if that is not all of them, the close code that says why.
func (f *frames) check(b []byte) (ok int, code closeCode) {
	for i := 0; i < len(b); {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)-i))
			f.left -= n
			i += int(n)
			continue
		}
		start := i
		for f.have < f.need() && i < len(b) {
			f.head[f.have] = b[i]
			f.have++
			i++
		}
		if f.have >= 2 {
			if code := f.judge(); code != 0 {
				return start, code
			}
		}
		if f.have == f.need() {
			f.begin()
		}
	}
	return len(b), 0
}

// speakable tells whether a frame of our own may follow.
func (f *frames) speakable() bool { return f.have == 0 && f.left == 0 && !f.closed }

// need is how many bytes the head has, as far as that is known.
func (f *frames) need() int {
	if f.have < 2 {
		return 2
	}
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// length is that of the payload; only when the head is whole.
func (f *frames) length() uint64 {
	switch short := f.head[1] & 0x7f; short {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(short)
	}
}

func (f *frames) opcode() byte { return f.head[0] & 0x0f }

func (f *frames) final() bool { return f.head[0]&0x80 != 0 }

// judge says what is wrong with a head of which at least two bytes are there.
func (f *frames) judge() closeCode {
	op, short := f.opcode(), f.head[1]&0x7f
	switch {
	case f.head[0]&0x70 != 0: // no extension was agreed on
		return closeProtocol
	case (f.head[1]&0x80 != 0) != f.masked:
		return closeProtocol
	case op > opBinary && op < opClose || op > opPong:
		return closeProtocol
	case op >= opClose && (!f.final() || short > maxControl):
		return closeProtocol
	case op == opContinuation && !f.fragmented:
		return closeProtocol
	case op > opContinuation && op < opClose && f.fragmented:
		return closeProtocol
	case f.have < f.need():
		return 0
	}
	if length := f.length(); length > f.limit || f.message+length > f.limit {
		return closeTooBig
	}
	return 0
}

// begin goes from a head to its payload.
func (f *frames) begin() {
	f.left = f.length()
	f.closed = f.closed || f.opcode() == opClose
	if f.opcode() < opClose {
		f.message += f.left
		f.fragmented = !f.final()
		if f.final() {
			f.message = 0
		}
	}
	f.have = 0
}

// closeFrame is a close frame of a server.
func closeFrame(code closeCode) []byte {
	return []byte{0x80 | opClose, 2, byte(code >> 8), byte(code)}
}

package federationtest

import (
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Misbehaviour replaces the answer to a userinfo request. The homeserver is
// given so that the answer can depend on its name.
type Misbehaviour func(h *Homeserver, w http.ResponseWriter, r *http.Request)

// Status answers with a status and no user.
func Status(status int) Misbehaviour {
	return func(_ *Homeserver, w http.ResponseWriter, _ *http.Request) {
		answer(w, status, map[string]string{"errcode": "M_UNKNOWN", "error": "no"})
	}
}

// Body answers 200 with a body. In it {name} stands for the server's name.
func Body(body string) Misbehaviour { return StatusBody(http.StatusOK, body) }

// StatusBody is Body with another status.
func StatusBody(status int, body string) Misbehaviour {
	return func(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.ReplaceAll(body, "{name}", h.Name()))
	}
}

// Endless answers with a good user first and then with more, without end.
func Endless(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintf(w, `{"sub":%q,"x":"`, h.User("eve"))
	filler := []byte(strings.Repeat("x", 32<<10))
	for {
		if _, err := w.Write(filler); err != nil {
			return
		}
	}
}

// Drip answers a byte now and then, without end.
func Drip(h *Homeserver, w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	_, _ = io.WriteString(w, "{")
	for {
		_, _ = io.WriteString(w, " ")
		w.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-h.ended:
			return
		}
	}
}

// Hang never answers.
func Hang(h *Homeserver, _ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-h.ended:
	}
}

// Close ends the connection without an answer.
func Close(_ *Homeserver, w http.ResponseWriter, _ *http.Request) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// Reset breaks the connection, as a machine that was started anew does.
func Reset(_ *Homeserver, w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*tls.Conn).NetConn().(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	}
}

// Raw answers with those bytes instead of HTTP of the library's making. In
// them {token} stands for the token of the request.
func Raw(bytes string) Misbehaviour {
	return func(_ *Homeserver, w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, strings.ReplaceAll(bytes, "{token}", r.URL.Query().Get("access_token")))
		_ = conn.Close()
	}
}

// EndlessInterim answers 103 again and again, which is no answer yet.
func EndlessInterim(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		select {
		case <-h.ended:
			return
		default:
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"); err != nil {
			return
		}
	}
}

// DripHeaders answers a header now and then, without end.
func DripHeaders(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
	for err == nil {
		select {
		case <-tick.C:
			_, err = io.WriteString(conn, "X-Drip: x\r\n")
		case <-h.ended:
			return
		}
	}
}

// GzipBomb answers, compressed and unasked, with a good user and a gigabyte of
// spaces.
func GzipBomb(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	packer := gzip.NewWriter(w)
	_, _ = fmt.Fprintf(packer, `{"sub":%q}`, h.User("eve"))
	filler := []byte(strings.Repeat(" ", 1<<20))
	for range 1 << 10 {
		if _, err := packer.Write(filler); err != nil {
			return
		}
	}
	_ = packer.Close()
}

// Delegate answers as a .well-known document that names a server.
func Delegate(to string) Misbehaviour {
	return func(_ *Homeserver, w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"m.server": to})
	}
}

// Redirect sends the client somewhere else; "" is to itself, for ever.
func Redirect(to string) Misbehaviour {
	return func(_ *Homeserver, w http.ResponseWriter, r *http.Request) {
		target := to
		if target == "" {
			target = r.URL.String()
		}
		http.Redirect(w, r, target, http.StatusFound)
	}
}

// HugeHeaders answers with headers of a megabyte.
func HugeHeaders(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
	for i := range 64 {
		w.Header().Set(fmt.Sprintf("X-Huge-%d", i), strings.Repeat("x", 16<<10))
	}
	_, _ = fmt.Fprintf(w, `{"sub":%q}`, h.User("eve"))
}

package door

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// handshakeTimeout is how long an SFU may take to answer. LiveKit itself
	// tries for some seconds to start a session.
	handshakeTimeout = 15 * time.Second
	// maxAnswer bounds what an SFU answers before the WebSocket is one.
	maxAnswer = 64 << 10
)

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade")
}

// forwarded are the client's headers that the SFU sees. Extensions are not
// among them: without compression the size of a frame is the size of what the
// SFU has to hold, and neither side keeps a compressor for each connection.
// Nor is any header by which a client could pose as a proxy.
var forwarded = []string{"User-Agent", "Origin", "Accept-Language"}

// upstream makes the request that the SFU sees: LiveKit's own path whatever
// prefix ours has, the client's parameters without its token, and our token.
func upstream(ctx context.Context, r *http.Request, pass Pass, route string) *http.Request {
	query := r.URL.Query()
	query.Del("access_token")
	to := *pass.SFU
	to.Path = strings.TrimSuffix(to.Path, "/") + route
	to.RawPath, to.RawQuery = "", query.Encode()
	out := (&http.Request{Method: http.MethodGet, URL: &to, Host: to.Host, Header: http.Header{}}).WithContext(ctx)
	for _, name := range forwarded {
		if values := r.Header.Values(name); len(values) > 0 {
			out.Header[name] = values
		}
	}
	out.Header.Set("Authorization", "Bearer "+pass.Token)
	return out
}

// ask passes one of the /validate questions on.
func (d *Door) ask(w http.ResponseWriter, r *http.Request, c *connection, pass Pass, route string) {
	ctx, cancel := context.WithTimeout(c.ctx, handshakeTimeout)
	defer cancel()
	answer, err := d.questions.RoundTrip(upstream(ctx, r, pass, route))
	if err != nil {
		d.unreachable(w, c, err)
		return
	}
	defer answer.Body.Close()
	d.relay(w, answer)
}

// connect makes a signalling connection of the request: it does the SFU's
// handshake, and if that answers with one, hands both sides over to the pumps.
func (d *Door) connect(w http.ResponseWriter, r *http.Request, c *connection, pass Pass, route string) {
	request := upstream(c.ctx, r, pass, route)
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "websocket")
	for _, name := range []string{"Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol"} {
		if values := r.Header.Values(name); len(values) > 0 {
			request.Header[name] = values
		}
	}
	sfu, err := dial(c.ctx, request.URL)
	if err != nil {
		d.unreachable(w, c, err)
		return
	}
	kept := false
	defer func() {
		if !kept {
			_ = sfu.Close()
		}
	}()
	// A client that gives up, or a cut, ends the handshake too.
	defer context.AfterFunc(c.ctx, func() { _ = sfu.SetDeadline(time.Unix(1, 0)) })()
	_ = sfu.SetDeadline(time.Now().Add(handshakeTimeout))
	answers := bufio.NewReaderSize(sfu, pumpBuffer)
	answer, err := shake(sfu, answers, request)
	if err != nil {
		d.unreachable(w, c, err)
		return
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		defer answer.Body.Close()
		d.relay(w, answer)
		return
	}
	kept = d.hijack(w, c, sfu, answers, answer)
}

// shake sends the request and reads the answer's head.
func shake(sfu net.Conn, answers *bufio.Reader, request *http.Request) (*http.Response, error) {
	if err := request.Write(sfu); err != nil {
		return nil, fmt.Errorf("ask the SFU: %w", err)
	}
	answer, err := http.ReadResponse(answers, request)
	if err != nil {
		return nil, fmt.Errorf("read the SFU's answer: %w", err)
	}
	return answer, nil
}

// hijack takes the client's connection over and starts the pumps. It reports
// whether they have the SFU's connection now.
func (d *Door) hijack(w http.ResponseWriter, c *connection, sfu net.Conn, answers *bufio.Reader, answer *http.Response) bool {
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		d.options.Log.Warn().Err(err).Msg("A signalling connection cannot be taken over")
		d.refuse(w, http.StatusInternalServerError, "upstream", "the service failed")
		return false
	}
	if !c.attach(client, sfu) {
		// Cut at the last moment; what the client sees is a broken connection,
		// and when it asks why, a refusal.
		_ = client.Close()
		return false
	}
	head := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
	for _, name := range []string{"Sec-Websocket-Accept", "Sec-Websocket-Protocol"} {
		for _, value := range answer.Header.Values(name) {
			head = fmt.Appendf(head, "%s: %s\r\n", name, value)
		}
	}
	c.pump(append(head, "\r\n"...), take(buffered.Reader), take(answers))
	return true
}

// take returns what a reader holds already.
func take(r *bufio.Reader) []byte {
	held := make([]byte, r.Buffered())
	_, _ = io.ReadFull(r, held) // cannot fail: it is there
	return held
}

func dial(ctx context.Context, to *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	address := to.Host
	if to.Port() == "" {
		address = net.JoinHostPort(to.Hostname(), map[string]string{"http": "80", "https": "443"}[to.Scheme])
	}
	if to.Scheme == "https" {
		// No HTTP/2: a WebSocket is made of HTTP/1.1.
		return (&tls.Dialer{Config: &tls.Config{ServerName: to.Hostname(), NextProtos: []string{"http/1.1"}}}).DialContext(ctx, "tcp", address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// notPermitted is LiveKit's text, with 401, for parameters that ask for more
// than the token gives: attributes or metadata of one's own.
const notPermitted = "no permissions to access the room"

// relay answers with what the SFU said instead of a connection: its status and
// text, none of its headers. That it does not know our own key is no fault of
// the client's; and LiveKit repeats the token in that answer.
func (d *Door) relay(w http.ResponseWriter, answer *http.Response) {
	if answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
		if strings.TrimSpace(string(text)) == notPermitted {
			d.refuse(w, http.StatusForbidden, "parameters", "the parameters ask for more than the token gives")
			return
		}
		d.options.Log.Error().Int("status", answer.StatusCode).Msg("The SFU does not accept our token; is its API key ours, and its clock right?")
		d.refuse(w, http.StatusServiceUnavailable, "upstream", "the media server is not available")
		return
	}
	if answer.StatusCode >= http.StatusBadRequest {
		d.metrics.refused.WithLabelValues("upstream").Inc()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(answer.Body, maxAnswer))
}

func (d *Door) unreachable(w http.ResponseWriter, c *connection, err error) {
	if c.isCut() {
		d.refuse(w, http.StatusForbidden, "not_admitted", notAdmitted)
		return
	}
	if c.ctx.Err() == nil {
		d.options.Log.Warn().Str("cause", safeCause(err)).Msg("The SFU did not take a signalling connection")
	}
	d.refuse(w, http.StatusServiceUnavailable, "upstream", "the media server is not available")
}

// safeCause drops the URL, which holds what a client sent, from an error of
// net/http.
func safeCause(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return err.Error()
}

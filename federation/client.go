package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"passerelle/config"
)

const (
	// maxAnswer bounds the body of any answer, as it comes over the wire.
	maxAnswer = 64 << 10
	// maxAnswerHeaders bounds its headers.
	maxAnswerHeaders = 32 << 10
	// maxWellKnownRedirects bounds redirects of .well-known documents. The
	// federation API itself has none.
	maxWellKnownRedirects = 3
	// idleFor is how long a connection is kept for the next question. It is
	// less than the 60 to 75 seconds of common homeservers and proxies: when
	// they close first, a question can be lost to it.
	idleFor = 45 * time.Second
)

var (
	errTimeout  = errors.New("it gave no whole answer in time")
	errTooLarge = errors.New("its answer is too large")
	errBroken   = errors.New("it closed the connection, or what it sent is not the HTTP expected")
)

// client speaks to other homeservers. There is one for all questions, so that
// connections are kept and one TLS handshake serves many.
//
// It speaks HTTP/1.1: a lone GET gains nothing from HTTP/2, and a hostile
// server has less to play with.
type client struct {
	// allowed is asked once more before anything goes out.
	allowed   func(serverName string) bool
	transport *http.Transport
	resolver  *resolver
	timeout   time.Duration
}

func newClient(o Options) (*client, error) {
	d, err := newDialer(o)
	if err != nil {
		return nil, err
	}
	// Without a Proxy, which would hide from the filter who is connected to.
	transport := &http.Transport{
		DialTLSContext:         d.secure,
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return nil, errBroken },
		Protocols:              http1Alone(),
		MaxResponseHeaderBytes: maxAnswerHeaders,
		MaxIdleConns:           1024,
		MaxIdleConnsPerHost:    maxInFlight,
		MaxConnsPerHost:        maxInFlight,
		IdleConnTimeout:        idleFor,
		// The limit on bodies counts what arrives.
		DisableCompression: true,
	}
	return &client{
		allowed:   func(name string) bool { return o.Policy.Access(name).Join },
		transport: transport,
		resolver:  &resolver{wellKnown: wellKnownClient(d), dns: d.net.Resolver},
		timeout:   o.Config.Timeout,
	}, nil
}

// newDialer returns what all connections to other homeservers are made with.
func newDialer(o Options) (*dialer, error) {
	filter, err := newAddressFilter(o.Config.AllowNetworks)
	if err != nil {
		return nil, err
	}
	roots, err := trustedCAs(o.Config)
	if err != nil {
		return nil, err
	}
	dns := o.DNS
	if dns == nil {
		// Not the C library's, in any case: its look-ups cannot be cancelled,
		// and names whose servers are silent would keep the threads for all.
		dns = &net.Resolver{PreferGo: true}
	}
	control := filter.control
	if o.dialled != nil {
		control = func(network, address string, c syscall.RawConn) error {
			err := filter.control(network, address, c)
			if err == nil {
				o.dialled(address)
			}
			return err
		}
	}
	return &dialer{
		net: net.Dialer{Timeout: o.Config.Timeout, Control: control, Resolver: dns},
		tls: &tls.Config{
			RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			InsecureSkipVerify: o.SkipVerifyTLS,
		},
		timeout: o.Config.Timeout,
		through: o.through,
	}, nil
}

// wellKnownClient fetches .well-known documents: over TLS alone, through the
// address filter, however often it is redirected. It has half of the time, so
// that a server whose name has no web server behind it is still found. mautrix'
// resolver reads at most 64 KiB of the answer.
func wellKnownClient(d *dialer) *http.Client {
	return &http.Client{
		Timeout: d.timeout / 2,
		Transport: &http.Transport{
			DialContext:            d.plain,
			TLSClientConfig:        d.tls.Clone(),
			Protocols:              http1Alone(),
			TLSHandshakeTimeout:    d.timeout / 2,
			MaxResponseHeaderBytes: maxAnswerHeaders,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxWellKnownRedirects || r.URL.Scheme != "https" {
				return errors.New("too many redirects, or one that leaves TLS")
			}
			return nil
		},
	}
}

func http1Alone() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	return p
}

func trustedCAs(c config.Federation) (*x509.CertPool, error) {
	if len(c.CAFiles) == 0 {
		return nil, nil // the system's
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	for _, file := range c.CAFiles {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("federation.ca_files: %w", err)
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("federation.ca_files: %s holds no certificate", file)
		}
	}
	return roots, nil
}

// get asks a server once, and never again by itself, and returns the status
// and the body. The context has a deadline. Errors hold neither the address,
// of which the query is a secret, nor anything that came over HTTP, where a
// server could put the query back.
func (c *client) get(ctx context.Context, p *peer, path string, query url.Values) (int, []byte, error) {
	if !c.allowed(p.name) {
		return 0, nil, ErrNotAllowed
	}
	where, err := p.home.find(ctx, c.resolver)
	if err != nil {
		return 0, nil, reason(err)
	}
	status, body, err := c.ask(ctx, where, path, query)
	if err != nil && !errors.Is(err, errTooLarge) && !errors.Is(ctx.Err(), context.Canceled) {
		p.home.doubt(where, c.resolver)
	}
	return status, body, err
}

func (c *client) ask(ctx context.Context, where *place, path string, query url.Values) (int, []byte, error) {
	request := (&http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Scheme: "https", Host: where.pool, Path: path, RawQuery: query.Encode()},
		Host:   where.host,
		Header: http.Header{"Accept": {"application/json"}, "User-Agent": {"Passerelle"}},
		// With a body that cannot be had twice, net/http does not send the
		// question again when a kept connection breaks. The body is empty, and
		// net/http finds that out before it sends anything.
		Body: io.NopCloser(eof{}),
	}).WithContext(context.WithValue(ctx, placeKey{}, where))
	answer, err := c.transport.RoundTrip(request)
	if err != nil {
		return 0, nil, reason(errors.Join(err, ended(ctx)))
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, reason(errors.Join(err, ended(ctx)))
	case len(body) > maxAnswer:
		return 0, nil, errTooLarge
	}
	return answer.StatusCode, body, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// reason says why a server could not be asked, in words of which none came
// from the server after it was told the query.
func reason(err error) error {
	switch {
	case errors.Is(err, errAddress):
		return errAddress
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return errTimeout
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	return errBroken
}

// close lets go of idle connections.
func (c *client) close() {
	c.transport.CloseIdleConnections()
	c.resolver.wellKnown.CloseIdleConnections()
}

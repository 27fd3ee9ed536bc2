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
	"time"

	"passerelle/config"
)

const (
	// maxAnswer bounds the body of any answer, decompressed.
	maxAnswer = 64 << 10
	// maxAnswerHeaders bounds its headers.
	maxAnswerHeaders = 32 << 10
	// maxWellKnownRedirects bounds redirects of .well-known documents. The
	// federation API itself has none.
	maxWellKnownRedirects = 3
)

// client speaks to other homeservers. There is one for all requests, so that
// connections are kept and one TLS handshake serves many.
type client struct {
	http     *http.Client
	resolver *resolver
	timeout  time.Duration
}

type addressesKey struct{}

func newClient(c config.Federation, dns *net.Resolver) (*client, error) {
	filter, err := newAddressFilter(c.AllowNetworks)
	if err != nil {
		return nil, err
	}
	roots, err := trustedCAs(c.CAFiles)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: c.Timeout, Control: filter.control, Resolver: dns}
	return &client{
		timeout: c.Timeout,
		resolver: &resolver{
			wellKnown: wellKnownClient(dialer, roots, c.Timeout),
			dns:       dns,
			now:       time.Now,
			known:     map[string]place{},
		},
		http: &http.Client{
			Timeout: c.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
			Transport: newTransport(roots, func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialFirst(ctx, dialer, network, address)
			}),
		},
	}, nil
}

// wellKnownClient fetches .well-known documents: from https alone, from public
// addresses alone, however often it is redirected.
func wellKnownClient(dialer *net.Dialer, roots *x509.CertPool, timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:   timeout,
		Transport: newTransport(roots, dialer.DialContext),
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxWellKnownRedirects || r.URL.Scheme != "https" {
				return errors.New("too many redirects, or one to an address without TLS")
			}
			return nil
		},
	}
}

func newTransport(roots *x509.CertPool, dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		// No proxy from the environment: the address filter sees who is dialled.
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: maxAnswerHeaders,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    maxInFlight,
		MaxConnsPerHost:        maxInFlight,
		IdleConnTimeout:        90 * time.Second,
		ForceAttemptHTTP2:      true,
		// The limit on bodies counts what arrives.
		DisableCompression: true,
	}
}

// dialFirst connects to the first address that answers of those that the
// request's server was resolved to.
func dialFirst(ctx context.Context, dialer *net.Dialer, network, address string) (net.Conn, error) {
	addresses, ok := ctx.Value(addressesKey{}).([]string)
	if !ok {
		addresses = []string{address}
	}
	var failures []error
	for _, a := range addresses {
		conn, err := dialer.DialContext(ctx, network, a)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

func trustedCAs(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil // the system's
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	for _, file := range files {
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

// get asks a server of the policy once and returns status and body. Its errors
// never hold the query, which carries tokens.
func (c *client) get(ctx context.Context, serverName, path string, query url.Values) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	where, err := c.resolver.resolve(ctx, serverName)
	if err != nil {
		return 0, nil, fmt.Errorf("find the server: %w", withoutURL(err))
	}
	address := url.URL{Scheme: "https", Host: where.host, Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(
		context.WithValue(ctx, addressesKey{}, where.addresses), http.MethodGet, address.String(), nil)
	if err != nil {
		return 0, nil, errors.New("the server's name makes no address")
	}
	request.Header.Set("User-Agent", "Passerelle")
	request.Header.Set("Accept", "application/json")
	answer, err := c.http.Do(request)
	if err != nil {
		c.resolver.forget(serverName)
		return 0, nil, withoutURL(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("read the answer: %w", withoutURL(err))
	case len(body) > maxAnswer:
		return 0, nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	return answer.StatusCode, body, nil
}

// close lets go of idle connections.
func (c *client) close() {
	c.http.CloseIdleConnections()
	c.resolver.wellKnown.CloseIdleConnections()
}

// withoutURL drops the address, and with it the token, from an error of
// net/http.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		if wrapped.Timeout() {
			return context.DeadlineExceeded
		}
		return wrapped.Err
	}
	return err
}

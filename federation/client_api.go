package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
)

const (
	// clientAPIFor is how long a server's client API is taken to be where its
	// document says; noClientAPIFor how long it is taken to say nothing.
	clientAPIFor, noClientAPIFor = time.Hour, time.Minute
	// maxClientAPIs bounds how many servers are remembered, maxDiscoveries how
	// many are looked up at once.
	maxClientAPIs, maxDiscoveries = 1024, 16
)

// ErrNoClientAPI is returned for a server whose client-server API cannot be
// found.
var ErrNoClientAPI = errors.New("the server does not say where its client API is")

// ClientAPIs finds the client-server APIs of homeservers, by the documents that
// clients read, too (client-server API, "Well-known URI"), and reaches them.
// Everything goes out over TLS and through the address filter. It is safe for
// concurrent use.
type ClientAPIs struct {
	policy    *Policy
	wellKnown *http.Client
	client    *http.Client
	timeout   time.Duration
	insist    bool // nothing is remembered of servers that say nothing
	plain     bool // addresses without TLS are taken
	asking    singleflight.Group
	turns     *semaphore.Weighted

	mu    sync.Mutex
	known *simplelru.LRU[string, clientAPI] // by name
}

type clientAPI struct {
	base  *url.URL // nil if there is none
	until time.Time
}

// NewClientAPIs returns ClientAPIs that know nothing yet. Close lets go of their
// connections.
func NewClientAPIs(o Options) (*ClientAPIs, error) {
	if o.Policy == nil || o.Config.Timeout <= 0 {
		return nil, errors.New("federation: client APIs need a policy and a timeout")
	}
	d, err := newDialer(o)
	if err != nil {
		return nil, err
	}
	return &ClientAPIs{
		policy:    o.Policy,
		wellKnown: wellKnownClient(d),
		client: &http.Client{
			Transport: &http.Transport{
				DialContext:            d.plain,
				TLSClientConfig:        d.tls.Clone(),
				Protocols:              http1Alone(),
				TLSHandshakeTimeout:    o.Config.Timeout,
				MaxResponseHeaderBytes: maxAnswerHeaders,
				MaxIdleConns:           256,
				MaxIdleConnsPerHost:    4,
				MaxConnsPerHost:        maxInFlight,
				IdleConnTimeout:        idleFor,
				DisableCompression:     true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		timeout: o.Config.Timeout,
		insist:  o.Insist,
		plain:   o.PlainClientAPIs,
		turns:   semaphore.NewWeighted(maxDiscoveries),
		known:   newLRU[clientAPI](maxClientAPIs),
	}, nil
}

// Client makes calls to what Find returns. It follows no redirects and has no
// deadline of its own.
func (c *ClientAPIs) Client() *http.Client { return c.client }

// Close lets go of idle connections.
func (c *ClientAPIs) Close() {
	c.wellKnown.CloseIdleConnections()
	c.client.CloseIdleConnections()
}

// Find returns the base of the server's client-server API, as an https address
// without a slash at its end. Only servers that may create calls are looked up.
// It takes at most the configured timeout. Errors are [ErrNotAllowed] and
// [ErrNoClientAPI].
func (c *ClientAPIs) Find(ctx context.Context, serverName string) (*url.URL, error) {
	if !c.policy.Access(serverName).Create {
		return nil, ErrNotAllowed
	}
	name := strings.ToLower(serverName)
	if base, ok := c.remembered(name); ok {
		return found(base)
	}
	// Who gives up must not fail those who share the look-up.
	shared := context.WithoutCancel(ctx)
	done := c.asking.DoChan(name, func() (any, error) {
		limited, cancel := context.WithTimeout(shared, c.timeout)
		defer cancel()
		base, err := c.discover(limited, name)
		return c.remember(name, base, err), nil
	})
	select {
	case r := <-done:
		return found(r.Val.(*url.URL))
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrNoClientAPI, ctx.Err())
	}
}

func found(base *url.URL) (*url.URL, error) {
	if base == nil {
		return nil, ErrNoClientAPI
	}
	return base, nil
}

// discover reads the document. Why it could not is of no use to anybody who
// asked, and what a server wrote must not come into an error.
func (c *ClientAPIs) discover(ctx context.Context, name string) (*url.URL, error) {
	if err := c.turns.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer c.turns.Release(1)
	address := url.URL{Scheme: "https", Host: name, Path: "/.well-known/matrix/client"}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, errBroken
	}
	answer, err := c.wellKnown.Do(request)
	if err != nil {
		return nil, reason(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, reason(err)
	case len(body) > maxAnswer:
		return nil, errTooLarge
	case answer.StatusCode != http.StatusOK:
		return nil, errBroken
	}
	base, err := clientBase(body)
	if err != nil || base.Scheme != "https" && !c.plain {
		return nil, errBroken
	}
	return base, nil
}

// clientBase reads a client's .well-known document. The address is https, or
// http.
func clientBase(body []byte) (*url.URL, error) {
	var document struct {
		Homeserver struct {
			BaseURL string `json:"base_url"`
		} `json:"m.homeserver"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, errBroken
	}
	base, err := url.Parse(strings.TrimRight(document.Homeserver.BaseURL, "/"))
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Hostname() == "" || base.Opaque != "" ||
		base.User != nil || base.RawQuery != "" || base.ForceQuery || strings.Contains(document.Homeserver.BaseURL, "#") {
		return nil, errBroken
	}
	return base, nil
}

func (c *ClientAPIs) remembered(name string) (*url.URL, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.known.Get(name)
	if !ok || !time.Now().Before(known.until) {
		return nil, false
	}
	return known.base, true
}

// remember keeps what was found. A server that does not answer for a moment is
// where it was.
func (c *ClientAPIs) remember(name string, base *url.URL, err error) *url.URL {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := clientAPIFor
	if err != nil {
		keep = noClientAPIFor
		if c.insist {
			keep = 0
		}
	}
	if known, ok := c.known.Peek(name); ok && err != nil && base == nil {
		base = known.base
	}
	c.known.Add(name, clientAPI{base: base, until: time.Now().Add(keep)})
	return base
}

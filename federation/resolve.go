package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix/federation"
)

const (
	// delegatedFor is how long a server that has a .well-known document is
	// taken to be where the document says. A day would be allowed
	// (server-server API, "Resolving server names"), but one that moves should
	// be found sooner.
	delegatedFor = time.Hour
	// plainFor is how long it is taken to have none, perhaps because the
	// document could not be had just then.
	plainFor = 5 * time.Minute
	// doubtedFor is the same after a connection failed: as often as this it is
	// looked for again, and no more.
	doubtedFor = 10 * time.Second
	// maxAddresses bounds how many SRV records of a server are tried.
	maxAddresses = 4
)

// place is where a server is reached. It is never changed once it is made.
type place struct {
	// pool names the connections to this place. It stands for host and port in
	// net/http's pool, where two servers could else share what they must not:
	// "a.example" (port 8448) and "a.example:443" have the same key there.
	pool string
	// host is the Host header, tlsName the name in the certificate.
	host, tlsName string
	// addresses are host:port, in the order in which to try them.
	addresses []string
}

// home is what is known about where a server is.
type home struct {
	name string
	// looking holds a value while somebody looks the server up. Who puts it in
	// takes it out; the others wait, each as long as its own deadline allows.
	looking chan struct{}

	mu      sync.Mutex
	place   *place
	err     error // of the last look-up, when place is nil
	foundAt time.Time
	until   time.Time
}

func newHome(name string) home {
	return home{name: name, looking: make(chan struct{}, 1)}
}

// known returns what was found and is still good.
func (h *home) known() (*place, error, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.place, h.err, time.Now().Before(h.until)
}

// find returns where the server is, which at most one caller at a time looks
// up. A failure is remembered too, for a moment.
func (h *home) find(ctx context.Context, r *resolver) (*place, error) {
	if p, err, ok := h.known(); ok {
		return p, err
	}
	select {
	case h.looking <- struct{}{}:
		defer func() { <-h.looking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if p, err, ok := h.known(); ok {
		return p, err
	}
	p, keep, err := r.resolve(ctx, h.name)
	if errors.Is(err, context.Canceled) {
		return nil, err // whoever asked went away; the next one looks
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.place != nil && p.same(h.place) {
		p = h.place // and its connections
	}
	h.place, h.err, h.foundAt = p, err, time.Now()
	h.until = h.foundAt.Add(keep)
	return p, err
}

// doubt is called when the place gave no answer. The server is looked for
// again soon, and never over the connections that failed.
func (h *home) doubt(p *place, r *resolver) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.place != p {
		return
	}
	h.place = r.place(p.host, p.addresses)
	if soon := h.foundAt.Add(doubtedFor); soon.Before(h.until) {
		h.until = soon
	}
}

func (p *place) same(other *place) bool {
	return p.host == other.host && slices.Equal(p.addresses, other.addresses)
}

// resolver finds where servers are.
type resolver struct {
	// wellKnown fetches .well-known documents, through the address filter.
	// mautrix' resolver would take [http.DefaultClient] without it.
	wellKnown *http.Client
	dns       *net.Resolver
	pools     atomic.Uint64
}

// resolve follows the discovery of the server-server API ("Resolving server
// names") and says for how long what it found is good. The name is one that
// the policy allows.
func (r *resolver) resolve(ctx context.Context, name string) (*place, time.Duration, error) {
	found, err := federation.ResolveServerName(ctx, name,
		&federation.ResolveServerNameOpts{HTTPClient: r.wellKnown, DNSClient: r.dns})
	// Out of time, mautrix' resolver takes the server to have neither
	// .well-known document nor SRV record.
	if err = errors.Join(err, ended(ctx)); err != nil {
		return nil, doubtedFor, err
	}
	host := found.HostHeader
	if !validServerName(host) {
		// The document names no server, so it is as if there were none; the
		// addresses are already those of the name itself.
		host = name
	}
	keep := delegatedFor
	if _, port, _ := federation.ParseServerName(name); host == name && port == 0 {
		keep = plainFor
	}
	return r.place(host, found.IPPort[:min(len(found.IPPort), maxAddresses)]), keep, nil
}

// ended is the context's error, by the clock: a read with the same deadline
// can fail a moment before the context does.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

func (r *resolver) place(host string, addresses []string) *place {
	tlsName, _, _ := federation.ParseServerName(host)
	return &place{
		pool:      strconv.FormatUint(r.pools.Add(1), 10),
		host:      host,
		tlsName:   tlsName,
		addresses: addresses,
	}
}

type placeKey struct{}

// dialer opens connections to places.
type dialer struct {
	net     net.Dialer
	tls     *tls.Config
	timeout time.Duration
	// through, when set, changes the port of an address. Only tests set it.
	through func(address string) string
}

// plain connects to an address, through the address filter.
func (d *dialer) plain(ctx context.Context, network, address string) (net.Conn, error) {
	if d.through != nil {
		address = d.through(address)
	}
	return d.net.DialContext(ctx, network, address)
}

// secure connects to the place in the context and proves that it is the one.
// Its limit in time is its own: net/http lets go of a request's deadline when
// it dials, since another request may use the connection.
func (d *dialer) secure(ctx context.Context, network, _ string) (net.Conn, error) {
	where, ok := ctx.Value(placeKey{}).(*place)
	if !ok {
		return nil, errors.New("federation: dialled without a place")
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := d.first(ctx, network, where.addresses)
	if err != nil {
		return nil, err
	}
	c := d.tls.Clone()
	c.ServerName = where.tlsName
	secured := tls.Client(conn, c)
	if err := secured.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// first connects to the first address that answers. Each gets its share of the
// time, so that one that swallows packets leaves some for the next.
func (d *dialer) first(ctx context.Context, network string, addresses []string) (net.Conn, error) {
	var failures []error
	for i, address := range addresses {
		conn, err := d.one(ctx, network, address, len(addresses)-i)
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

func (d *dialer) one(ctx context.Context, network, address string, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return d.plain(ctx, network, address)
}

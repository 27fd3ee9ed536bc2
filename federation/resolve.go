package federation

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
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
	// staleFor is how long, after it was found, a server is taken to be where it
	// was when looking for it again fails: the web server that has its document, or
	// a name server, is away, and the homeserver answers as before. Every
	// connection proves anew that it is the one.
	staleFor = 6 * time.Hour
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
	// srv: SRV records say so.
	srv bool
}

// home is what is known about where a server is.
type home struct {
	name string
	// looking holds a value while somebody looks the server up. Who puts it in
	// takes it out; the others wait, each as long as its own deadline allows.
	looking chan struct{}

	mu      sync.Mutex
	place   *place
	err     error     // of the last look-up, when place is nil
	foundAt time.Time // when it was looked for
	goodAt  time.Time // when the place was found
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
	looking, cancel := h.share(ctx)
	defer cancel()
	l, err := r.resolve(looking, h.name)
	if errors.Is(err, context.Canceled) {
		return nil, err // whoever asked went away; the next one looks
	}
	return h.take(l, err)
}

// share leaves, of the time for a question, some for the question itself where
// it will be asked whatever the look-up finds.
func (h *home) share(ctx context.Context) (context.Context, context.CancelFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	deadline, ok := ctx.Deadline()
	if !ok || h.place == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)*3/4)
}

// take takes in what a look-up found. The place of before stays where the
// look-up could not see what has led there.
func (h *home) take(l lookup, err error) (*place, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.foundAt = time.Now()
	if h.place != nil && h.foundAt.Before(h.goodAt.Add(staleFor)) && (err != nil || l.blindTo(h.place, h.name)) {
		h.until = h.foundAt.Add(plainFor)
		return h.place, nil
	}
	if err == nil && h.place != nil && l.place.same(h.place) {
		l.place = h.place // and its connections
	}
	h.place, h.err, h.goodAt = l.place, err, h.foundAt
	h.until = h.foundAt.Add(l.keep)
	return h.place, h.err
}

// doubt is called when the place gave no answer. The server is looked for
// again soon, and never over the connections that failed.
func (h *home) doubt(p *place, r *resolver) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.place != p {
		return
	}
	h.place = r.place(p.host, p.addresses, p.srv)
	if soon := h.foundAt.Add(doubtedFor); soon.Before(h.until) {
		h.until = soon
	}
}

func (p *place) same(other *place) bool {
	return p.host == other.host && slices.Equal(p.addresses, other.addresses)
}

// lookup is what a look-up found.
type lookup struct {
	place *place
	// keep is for how long it is good.
	keep time.Duration
	// noDocument and noSRV: whether there is a .well-known document, and whether
	// there are SRV records, could not be seen. What they might say was left out.
	noDocument, noSRV bool
}

// blindTo tells whether the look-up could not see what led to a place before: the
// document, when it is not at the server's own name, or the SRV records.
func (l lookup) blindTo(p *place, name string) bool {
	return l.noDocument && p.host != name || l.noSRV && p.srv && l.place.host == p.host
}

// resolver finds where servers are.
type resolver struct {
	// wellKnown fetches .well-known documents, through the address filter.
	wellKnown *http.Client
	dns       *net.Resolver
	pools     atomic.Uint64
}

// resolve follows the discovery of the server-server API ("Resolving server
// names"). The name is one that the policy allows. mautrix' resolver does the
// same, and does not tell a server without document or records from one of
// which they could not be had.
func (r *resolver) resolve(ctx context.Context, name string) (lookup, error) {
	l := lookup{keep: delegatedFor}
	server := name
	host, port, ok := federation.ParseServerName(name)
	if !ok {
		return lookup{keep: doubtedFor}, federation.ErrInvalidServerName
	}
	if port == 0 && net.ParseIP(host) == nil {
		delegate, err := r.document(ctx, host)
		l.noDocument = err != nil
		if delegate != "" {
			server = delegate
			host, port, _ = federation.ParseServerName(delegate)
		}
		if server == name {
			l.keep = plainFor
		}
	}
	var addresses []string
	if port == 0 && net.ParseIP(host) == nil && ended(ctx) == nil {
		var err error
		addresses, err = r.records(ctx, host)
		l.noSRV = err != nil
	}
	if err := ended(ctx); err != nil {
		return lookup{keep: doubtedFor}, err
	}
	srv := len(addresses) > 0
	if !srv {
		addresses = []string{net.JoinHostPort(host, strconv.Itoa(int(cmp.Or(port, 8448))))}
	}
	l.place = r.place(server, addresses, srv)
	return l, nil
}

// document is the server that the .well-known document names, or none: there is
// no document, or it names no server, which is the same. An error means that it
// could not be seen. Web servers that are being repaired have many answers; no
// other than these two say that there is none.
func (r *resolver) document(ctx context.Context, host string) (string, error) {
	address := url.URL{Scheme: "https", Host: host, Path: "/.well-known/matrix/server"}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return "", errBroken
	}
	answer, err := r.wellKnown.Do(request)
	if err != nil {
		return "", reason(err)
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return "", nil
	default:
		return "", errBroken
	}
	var document struct {
		Server string `json:"m.server"`
	}
	if json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&document) != nil {
		return "", errBroken
	}
	if !validServerName(document.Server) {
		return "", nil
	}
	return document.Server, nil
}

// records are the addresses that SRV records name, none where there are none. An
// error means that they could not be seen.
func (r *resolver) records(ctx context.Context, host string) ([]string, error) {
	// From the root: a search domain of this machine has its own names, and its own
	// word on which there are.
	records, err := federation.RequestSRV(ctx, r.dns, strings.TrimSuffix(host, ".")+".")
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	addresses := make([]string, 0, maxAddresses)
	for _, record := range records[:min(len(records), maxAddresses)] {
		addresses = append(addresses, net.JoinHostPort(strings.TrimRight(record.Target, "."), strconv.Itoa(int(record.Port))))
	}
	return addresses, nil
}

// ended is the context's error, by the clock: a read with the same deadline
// can fail a moment before the context does.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

func (r *resolver) place(host string, addresses []string, srv bool) *place {
	tlsName, _, _ := federation.ParseServerName(host)
	return &place{
		pool:      strconv.FormatUint(r.pools.Add(1), 10),
		host:      host,
		tlsName:   tlsName,
		addresses: addresses,
		srv:       srv,
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

package federation

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"maunium.net/go/mautrix/federation"
)

const (
	// maxResolved bounds how many servers are remembered.
	maxResolved = 1024
	// resolvedFor is how long the place of a server is remembered; a .well-known
	// document may be cached for a day (server-server API, "Resolving server
	// names"), and a server that moves should be found sooner.
	resolvedFor = time.Hour
)

// resolver finds where a server name leads, and remembers it.
type resolver struct {
	// wellKnown fetches .well-known documents, through the address filter.
	wellKnown *http.Client
	dns       *net.Resolver
	now       func() time.Time

	asking singleflight.Group
	mu     sync.Mutex
	known  map[string]place
}

// place is where a server is reached.
type place struct {
	// host is the Host header and the name in the certificate.
	host string
	// addresses are host:port, in the order in which to try them.
	addresses []string
	until     time.Time
}

// resolve follows the discovery of the server-server API. The name is one
// that the policy allows. Equal questions at one time are asked once.
func (r *resolver) resolve(ctx context.Context, serverName string) (place, error) {
	if p, ok := r.remembered(serverName); ok {
		return p, nil
	}
	found := r.asking.DoChan(serverName, func() (any, error) {
		// Whoever asked first may go away; the others still want the answer.
		// The look-up itself is bounded by the well-known client and this.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.wellKnown.Timeout)
		defer cancel()
		resolved, err := federation.ResolveServerName(ctx, serverName,
			&federation.ResolveServerNameOpts{HTTPClient: r.wellKnown, DNSClient: r.dns})
		if err != nil {
			return place{}, err
		}
		p := place{host: resolved.HostHeader, addresses: resolved.IPPort, until: r.now().Add(resolvedFor)}
		r.remember(serverName, p)
		return p, nil
	})
	select {
	case result := <-found:
		return result.Val.(place), result.Err
	case <-ctx.Done():
		return place{}, ctx.Err()
	}
}

func (r *resolver) remembered(serverName string) (place, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.known[serverName]
	return p, ok && r.now().Before(p.until)
}

func (r *resolver) remember(serverName string, p place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxResolved {
		for name := range r.known { // any: this happens with globs and many partners only
			delete(r.known, name)
			break
		}
	}
	r.known[serverName] = p
}

// forget makes the next request look the server up again: where it was, it did
// not answer.
func (r *resolver) forget(serverName string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, serverName)
}

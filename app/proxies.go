package app

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// proxies are the address ranges of the operator's own reverse proxies.
type proxies []netip.Prefix

func newProxies(networks []string) (proxies, error) {
	var p proxies
	for _, network := range networks {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return nil, fmt.Errorf("server.trusted_proxies: %w", err)
		}
		p = append(p, prefix.Masked())
	}
	return p, nil
}

// client is where a request really comes from, as host:port: whoever is
// connected, unless that is a proxy of ours, and then the last one in
// X-Forwarded-For who is none. What stands before that one anybody may have
// written.
func (p proxies) client(r *http.Request) string {
	connected, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !p.include(connected.Addr()) {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		if !p.include(hop) {
			return net.JoinHostPort(hop.Unmap().String(), "0")
		}
	}
	return r.RemoteAddr
}

func (p proxies) include(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	for _, prefix := range p {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

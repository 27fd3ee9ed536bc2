package federation

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// errAddress is returned for a connection to an address that is not public
// and that the operator did not list.
var errAddress = errors.New("the address is not public, and federation.allow_networks does not list it")

// special are the ranges, beyond those that netip knows (private, loopback,
// link-local, multicast, unspecified), in which no public homeserver can be
// (IANA special-purpose address registries).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network
	netip.MustParsePrefix("100.64.0.0/10"),   // carrier-grade NAT
	netip.MustParsePrefix("192.0.0.0/24"),    // protocol assignments
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relays
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarks
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved, broadcast
	netip.MustParsePrefix("2001::/23"),       // protocol assignments, Teredo
	netip.MustParsePrefix("2001:db8::/32"),   // documentation
	netip.MustParsePrefix("2002::/16"),       // 6to4: holds an IPv4 address
	netip.MustParsePrefix("3fff::/20"),       // documentation
}

// globalIPv6 is all that was ever given out of IPv6 for the Internet. What is
// outside of it is special, the ranges that hold an IPv4 address among it
// (NAT64, IPv4-translated, IPv4-compatible).
var globalIPv6 = netip.MustParsePrefix("2000::/3")

// addressFilter decides which addresses may be dialled.
type addressFilter struct {
	allowed []netip.Prefix
}

func newAddressFilter(networks []string) (addressFilter, error) {
	var f addressFilter
	for _, network := range networks {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return f, fmt.Errorf("federation.allow_networks: %w", err)
		}
		if prefix.Addr().Is4In6() {
			return f, fmt.Errorf("federation.allow_networks: %s: write the range as IPv4", network)
		}
		f.allowed = append(f.allowed, prefix.Masked())
	}
	return f, nil
}

// control is a [net.Dialer]'s Control: it sees each address just before it is
// connected to, after every look-up, so a name that resolves to something else
// the second time gains nothing.
func (f addressFilter) control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("network %q: %w", network, errAddress)
	}
	endpoint, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %w", errAddress, err)
	}
	if !f.permits(endpoint.Addr()) {
		return errAddress
	}
	return nil
}

func (f addressFilter) permits(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	contains := func(prefix netip.Prefix) bool { return prefix.Contains(ip) }
	if slices.ContainsFunc(f.allowed, contains) {
		return true
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Is6() && !globalIPv6.Contains(ip) {
		return false
	}
	return !slices.ContainsFunc(special, contains)
}

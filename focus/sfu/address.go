package sfu

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// errNoAddress is returned when the SFU's address must be configured.
var errNoAddress = errors.New("livekit.embedded.node_ip: this machine has no address that others could reach (write the one that clients shall send media to)")

// machineAddress is the address of this machine to send media to when none is
// configured. We choose, because LiveKit would ask public STUN servers.
func machineAddress(loopback bool) (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("list this machine's interfaces: %w", err)
	}
	var all []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addresses, err := i.Addrs()
		if err != nil {
			return "", fmt.Errorf("list the addresses of %s: %w", i.Name, err)
		}
		for _, a := range addresses {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				all = append(all, prefix.Addr().Unmap())
			}
		}
	}
	return chooseAddress(all, loopback)
}

// chooseAddress returns the first address that others could reach: IPv4 where
// there is one, since some networks of clients have nothing else. A trial on
// one machine works without any.
func chooseAddress(all []netip.Addr, loopback bool) (string, error) {
	reachable := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return !a.IsGlobalUnicast() })
	slices.SortStableFunc(reachable, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	switch {
	case len(reachable) > 0:
		return reachable[0].String(), nil
	case loopback:
		return "127.0.0.1", nil
	}
	return "", errNoAddress
}

// freePort finds a port that is free now; another process could take it before
// the child does.
func freePort(network string) (int, error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", ":0")
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

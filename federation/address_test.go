package federation

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddressesOfTheInternetAlone(t *testing.T) {
	f, err := newAddressFilter(nil)
	require.NoError(t, err)
	for _, address := range []string{
		"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
		"169.253.255.255", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255",
		"198.20.0.0", "223.255.255.255", "2a01:cb00::1", "2606:4700::1111", "2001:200::1", "::ffff:1.1.1.1",
	} {
		require.True(t, f.permits(netip.MustParseAddr(address)), address)
	}
	for _, address := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.255",
		"169.254.0.0", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1",
		"192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
		"239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1",
		"3fff::1", "5f00::1", "4000::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
	} {
		require.False(t, f.permits(netip.MustParseAddr(address)), address)
	}
}

func TestListedNetworks(t *testing.T) {
	f, err := newAddressFilter([]string{"10.1.0.0/16", "127.0.0.1/32", "fd00:1::/32"})
	require.NoError(t, err)
	for address, want := range map[string]bool{
		"10.1.0.0": true, "10.1.255.255": true, "10.2.0.0": false, "10.0.255.255": false, "::ffff:10.1.0.1": true,
		"127.0.0.1": true, "127.0.0.2": false, "fd00:1::1": true, "fd00:2::1": false, "1.1.1.1": true,
	} {
		require.Equal(t, want, f.permits(netip.MustParseAddr(address)), address)
	}
	for _, wrong := range []string{"", "10.1.0.0", "10.1.0.0/33", "intranet", "::ffff:10.0.0.0/104"} {
		_, err := newAddressFilter([]string{wrong})
		require.ErrorContains(t, err, "federation.allow_networks", wrong)
	}
}

func TestOnlyTCPIsDialled(t *testing.T) {
	f, err := newAddressFilter(nil)
	require.NoError(t, err)
	require.NoError(t, f.control("tcp4", "1.1.1.1:8448", nil))
	require.NoError(t, f.control("tcp6", "[2606:4700::1111]:1", nil))
	for _, c := range [][2]string{{"udp4", "1.1.1.1:53"}, {"unix", "/run/x"}, {"tcp4", "1.1.1.1"}, {"tcp4", "name:1"}, {"tcp4", "127.0.0.1:1"}} {
		require.ErrorIs(t, f.control(c[0], c[1], nil), errAddress, "%v", c)
	}
}

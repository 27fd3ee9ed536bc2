package federation_test

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/federation/federationtest"
	"passerelle/focus/matrixrtc"
)

// forbidden are addresses at which there is no public homeserver but, on many
// a machine, something worth asking; and the ways to spell them.
var forbidden = []string{
	"127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1",
	"169.254.169.254", "169.254.170.2", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255",
	"[::1]", "[::]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[0:0:0:0:0:ffff:a00:1]",
	"[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]", "[ff02::1]",
}

// spelled are numbers that some resolvers take for loopback or metadata. What
// is no IP literal to Matrix is a name, so the test's DNS is asked and answers
// as those resolvers would.
var spelled = map[string]string{
	"2130706433": "127.0.0.1", "0x7f000001": "127.0.0.1", "0x7f.0x0.0x0.0x1": "127.0.0.1", "017700000001": "127.0.0.1",
	"0177.0.0.1": "127.0.0.1", "127.1": "127.0.0.1", "127.0.1": "127.0.0.1", "0": "0.0.0.0", "2852039166": "169.254.169.254",
	"0xa9fea9fe": "169.254.169.254", "localhost": "127.0.0.1", "metadata.google.internal": "169.254.169.254",
	"127.0.0.1.nip.test": "127.0.0.1", "LOCALHOST": "127.0.0.1", "localhost.": "127.0.0.1",
}

// road is a way that a stranger can have us go.
type road struct {
	// server is the name that the client sends. Of hs.test there is a
	// homeserver, at 127.0.0.1.
	server    string
	addresses map[string][]string
	document  federationtest.Misbehaviour
	srv       map[string][]net.SRV
}

// TestNothingForbiddenIsDialled leads the way to each forbidden address by
// each road that strangers have: the server's name, its address records, at
// once or only at the second look, its document, a redirect of that, its SRV
// records. What counts is what the kernel was asked to connect to.
func TestNothingForbiddenIsDialled(t *testing.T) {
	roads := map[string]road{}
	for _, address := range forbidden {
		// In these tests 127.0.0.1 is where the stranger's own server is.
		if address != "127.0.0.1" && !strings.Contains(address, "127.0.0.1]") && address != "[::ffff:7f00:1]" {
			roads["a document of "+address] = road{server: "hs.test", addresses: at("127.0.0.1"), document: federationtest.Delegate(address + ":6379")}
			roads["a redirect to "+address] = road{server: "hs.test", addresses: map[string][]string{"hs.test": {"127.0.0.1", "192.168.0.9"}},
				document: federationtest.Redirect("https://" + address + ":443/.well-known/matrix/server")}
		}
		roads["the name "+address] = road{server: address}
		roads["the name "+address+" with a port"] = road{server: address + ":80"}
		if ip := strings.Trim(address, "[]"); netip.MustParseAddr(ip).Is4() && ip != "127.0.0.1" {
			roads["a record of "+ip] = road{server: "hs.test:8448", addresses: at(ip)}
			roads["a second record of "+ip] = road{server: "hs.test", addresses: map[string][]string{"hs.test": {"127.0.0.1", ip}}}
			roads["an SRV record to "+ip] = road{server: "hs.test", addresses: map[string][]string{"hs.test": {"127.0.0.1"}, "inside.test": {ip}},
				srv: map[string][]net.SRV{"_matrix-fed._tcp.hs.test": {{Target: "inside.test", Port: 22}}}}
			roads["an old SRV record to "+ip] = road{server: "hs.test", addresses: map[string][]string{"hs.test": {"127.0.0.1"}, "inside.test": {ip}},
				srv: map[string][]net.SRV{"_matrix._tcp.hs.test": {{Target: "inside.test", Port: 22}}}}
		}
	}
	for name, address := range spelled {
		roads["spelled "+name] = road{server: name, addresses: at(address)}
		roads["spelled "+name+" with a port"] = road{server: name + ":6379", addresses: at(address)}
		if address != "127.0.0.1" {
			roads["a document of "+name] = road{server: "hs.test", document: federationtest.Delegate(name + ":80"),
				addresses: map[string][]string{"hs.test": {"127.0.0.1"}, "*": {address}}}
		}
	}
	require.Greater(t, len(roads), 150)
	for name, r := range roads {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dials := r.take(t)
			if !strings.HasPrefix(r.server, "hs.test") {
				require.Empty(t, dials)
			}
			for _, dialled := range dials {
				require.Equal(t, "the document", dialled)
			}
		})
	}
}

// take goes the road and returns what was dialled.
func (r road) take(t *testing.T) []string {
	t.Helper()
	own := federationtest.New(t, federationtest.GoodCertificate)
	own.WellKnown(r.document)
	dns := newDNS(t, r.addresses)
	dns.setSRV(r.srv)
	var mu sync.Mutex
	var dials []string
	openID := newOpenID(t, own, func(o *federation.Options) {
		policy, err := federation.NewPolicy([]config.FederationRule{{Server: "*", Access: "create"}})
		require.NoError(t, err)
		o.Policy, o.DNS, o.Config.AllowNetworks = policy, dns.resolver, nil
		if strings.HasPrefix(r.server, "hs.test") {
			o.Config.AllowNetworks = []string{"127.0.0.1/32"}
		}
		o.Through(func(address string) string {
			if address == "hs.test:443" {
				return "hs.test:" + own.Port()
			}
			return address
		})
		o.Dialled(func(address string) {
			mu.Lock()
			defer mu.Unlock()
			if address == own.Name() {
				address = "the document"
			}
			dials = append(dials, address)
		})
	})
	began := time.Now()
	user, err := openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: "x", MatrixServerName: r.server})
	require.Error(t, err)
	require.Empty(t, user)
	require.Less(t, time.Since(began), 5*time.Second)
	require.Zero(t, own.Requests())
	mu.Lock()
	defer mu.Unlock()
	return dials
}

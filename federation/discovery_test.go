package federation_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/federation/federationtest"
	"passerelle/focus/matrixrtc"
)

// named is a homeserver that has a name, and maybe a .well-known document at
// port 443 and a federation listener at 8448, both in truth at the one port.
type named struct {
	*federationtest.Homeserver
	dns    *fakeDNS
	openID *federation.OpenID
}

// newNamed listens at 127.0.0.1 and may connect to that address alone: in
// these tests it stands for the public ones, and 127.0.0.2 for the others.
func newNamed(t *testing.T, addresses map[string][]string) named {
	t.Helper()
	h := federationtest.New(t, federationtest.GoodCertificate)
	dns := newDNS(t, addresses)
	openID := newOpenID(t, h, func(o *federation.Options) {
		o.Config.AllowNetworks = []string{"127.0.0.1/32"}
		o.DNS = dns.resolver
		o.Through(func(address string) string {
			host, port, err := net.SplitHostPort(address)
			if err == nil && (port == "443" || port == "8448") {
				return net.JoinHostPort(host, h.Port())
			}
			return address
		})
	})
	return named{h, dns, openID}
}

// verify asks with a new token of a user of that server.
func (n named) verify(t *testing.T, server string) error {
	t.Helper()
	user := "@ana:" + server
	got, err := n.openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: n.IssueTo(user), MatrixServerName: server})
	if err == nil {
		require.Equal(t, user, got.String())
	}
	return err
}

func at(address string) map[string][]string { return map[string][]string{"*": {address}} }

func TestDiscovery(t *testing.T) {
	for name, c := range map[string]struct {
		server    string
		wellKnown federationtest.Misbehaviour
		srv       map[string][]net.SRV
		addresses map[string][]string
		document  int // how often the document is asked for
	}{
		"a port":                                   {server: "hs.test:8448"},
		"no document":                              {server: "hs.test", document: 1},
		"a document with a port":                   {server: "hs.test", wellKnown: federationtest.Delegate("matrix.test:8448"), document: 1},
		"a document without":                       {server: "hs.test", wellKnown: federationtest.Delegate("matrix.test"), document: 1},
		"a document with an address":               {server: "hs.test", wellKnown: federationtest.Delegate("127.0.0.1"), document: 1},
		"a document that names nothing":            {server: "hs.test", wellKnown: federationtest.Delegate("https://matrix.test/"), document: 1},
		"a document that would add to the address": {server: "hs.test", wellKnown: federationtest.Delegate("matrix.test/path?x="), document: 1},
		"a document that is too large": {server: "hs.test", document: 1,
			wellKnown: federationtest.Body(strings.Repeat(" ", 64<<10) + `{"m.server":"127.0.0.2"}`)},
		"an endless document":   {server: "hs.test", wellKnown: federationtest.Endless, document: 1},
		"a document that drips": {server: "hs.test", wellKnown: federationtest.Drip, document: 1},
		"a document that hangs": {server: "hs.test", wellKnown: federationtest.Hang, document: 1},
		"a document of redirects": {server: "hs.test", document: 4, // the first and three redirects
			wellKnown: federationtest.Redirect("https://other.test/.well-known/matrix/server")},
		"a document behind a redirect without TLS": {server: "hs.test", wellKnown: federationtest.Redirect("http://hs.test/"), document: 1},
		"an SRV record": {server: "hs.test", document: 1,
			srv: map[string][]net.SRV{"_matrix-fed._tcp.hs.test": {{Target: "far.test", Port: 8448}}}},
		"an old SRV record": {server: "hs.test", document: 1,
			srv: map[string][]net.SRV{"_matrix._tcp.hs.test": {{Target: "far.test", Port: 8448}}}},
		"two SRV records of which one is dead": {server: "hs.test", document: 1,
			addresses: map[string][]string{"*": {"127.0.0.1"}, "dead.test": {"127.0.0.2"}},
			srv: map[string][]net.SRV{"_matrix-fed._tcp.hs.test": {
				{Target: "dead.test", Port: 8448}, {Target: "far.test", Port: 8448, Priority: 1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.addresses == nil {
				c.addresses = at("127.0.0.1")
			}
			n := newNamed(t, c.addresses)
			n.WellKnown(c.wellKnown)
			n.dns.setSRV(c.srv)
			require.NoError(t, n.verify(t, c.server))
			require.NoError(t, n.verify(t, c.server), "and from memory")
			require.Equal(t, 2, n.Requests())
			require.Equal(t, c.document, n.WellKnownRequests())
		})
	}
}

// No way that a server's name, documents and records can lead ends at an
// address that is not public: nothing is even connected to.
func TestNoWayLeadsInside(t *testing.T) {
	for name, c := range map[string]struct {
		server    string
		addresses map[string][]string
		wellKnown func(inside string) federationtest.Misbehaviour
		srv       func(port uint16) map[string][]net.SRV
		unknown   bool // it is no name to Go's resolver
	}{
		"a name": {addresses: at("127.0.0.2"), server: "hs.test:INSIDE"},
		"a name that changes once it is known": {server: "hs.test", // document, then 8448
			addresses: map[string][]string{"hs.test": {"127.0.0.1", "127.0.0.2"}}},
		"a document with an address": {server: "hs.test", addresses: at("127.0.0.1"),
			wellKnown: func(inside string) federationtest.Misbehaviour { return federationtest.Delegate(inside) }},
		"a document with a name": {server: "hs.test",
			addresses: map[string][]string{"hs.test": {"127.0.0.1"}, "inside.test": {"127.0.0.2"}},
			wellKnown: func(inside string) federationtest.Misbehaviour {
				return federationtest.Delegate("inside.test:" + inside[strings.LastIndexByte(inside, ':')+1:])
			}},
		"a document that redirects": {server: "hs.test",
			addresses: map[string][]string{"hs.test": {"127.0.0.1", "127.0.0.2"}},
			wellKnown: func(inside string) federationtest.Misbehaviour {
				return federationtest.Redirect("https://" + inside + "/.well-known/matrix/server")
			}},
		"an SRV record": {server: "hs.test",
			addresses: map[string][]string{"hs.test": {"127.0.0.1"}, "inside.test": {"127.0.0.2"}},
			srv: func(port uint16) map[string][]net.SRV {
				return map[string][]net.SRV{"_matrix-fed._tcp.hs.test": {{Target: "inside.test", Port: port}}}
			}},
		"an address in decimal": {server: "2130706434:INSIDE", addresses: at("127.0.0.2"), unknown: true},
		"an address in hex":     {server: "0x7f000002:INSIDE", addresses: at("127.0.0.2")},
		"an address as mapped":  {server: "[::ffff:127.0.0.2]:INSIDE"},
		"metadata":              {server: "169.254.169.254:80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNamed(t, c.addresses)
			policy, err := federation.NewPolicy([]config.FederationRule{{Server: "*", Access: "create"}})
			require.NoError(t, err)
			inside := federationtest.Listen(t, "127.0.0.2:0")
			_, port, err := net.SplitHostPort(inside.Name())
			require.NoError(t, err)
			openID := insideOpenID(t, n, policy, port)
			if c.wellKnown != nil {
				n.WellKnown(c.wellKnown(inside.Name()))
			}
			if c.srv != nil {
				var number uint16
				_, err := fmt.Sscan(port, &number)
				require.NoError(t, err)
				n.dns.setSRV(c.srv(number))
			}
			server := strings.Replace(c.server, "INSIDE", port, 1)
			began := time.Now()
			_, err = openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: "x", MatrixServerName: server})
			require.ErrorIs(t, err, federation.ErrUnreachable)
			if !c.unknown {
				require.ErrorContains(t, err, "not public")
			}
			require.Zero(t, inside.Connections())
			require.Zero(t, n.Requests())
			require.Less(t, time.Since(began), 2*timeout)
		})
	}
}

// insideOpenID connects to port 8448 of any name at the port of the inside,
// so that only the address filter is in the way.
func insideOpenID(t *testing.T, n named, policy *federation.Policy, port string) *federation.OpenID {
	t.Helper()
	return newOpenID(t, n.Homeserver, func(o *federation.Options) {
		o.Policy = policy
		o.Config.AllowNetworks = []string{"127.0.0.1/32"}
		o.DNS = n.dns.resolver
		o.Through(func(address string) string {
			host, p, err := net.SplitHostPort(address)
			switch {
			case err == nil && p == "443":
				return net.JoinHostPort(host, n.Port())
			case err == nil && p == "8448":
				return net.JoinHostPort(host, port)
			}
			return address
		})
	})
}

func TestServersOfOneNameAndTwoPortsShareNoConnection(t *testing.T) {
	n := newNamed(t, at("127.0.0.1"))
	require.NoError(t, n.verify(t, "hs.test"))
	require.NoError(t, n.verify(t, "hs.test:443"))
	before := n.Connections()
	require.NoError(t, n.verify(t, "hs.test"))
	require.NoError(t, n.verify(t, "hs.test:443"))
	require.Equal(t, before, n.Connections())
	require.Equal(t, 3, before, "one for the document, one for each server")
}

// However a name is spelled, its server is one: one account, one look-up.
func TestSpellingsOfOneServer(t *testing.T) {
	n := newNamed(t, at("127.0.0.1"))
	for range 3 {
		for _, server := range []string{"hs.test", "HS.test", "hs.TEST"} {
			_, err := n.openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: n.IssueTo("@ana:hs.test"), MatrixServerName: server})
			if server == "hs.test" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, federation.ErrRejected, "IDs are compared whole")
			}
		}
	}
	require.Equal(t, 1, n.WellKnownRequests())
	require.Equal(t, 2, n.Connections())
}

// The document is asked for once however many ask for the server at once.
func TestOneLooksForAServer(t *testing.T) {
	n := newNamed(t, at("127.0.0.1"))
	n.WellKnown(func(h *federationtest.Homeserver, w http.ResponseWriter, r *http.Request) {
		time.Sleep(50 * time.Millisecond) // long enough for all to ask
		federationtest.Delegate("matrix.test:8448")(h, w, r)
	})
	errs := make(chan error, 20)
	for range cap(errs) {
		go func() { errs <- n.verify(t, "hs.test") }()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	require.Equal(t, 1, n.WellKnownRequests())
}

func TestADocumentIsNotFetchedWithoutTLS(t *testing.T) {
	n := newNamed(t, at("127.0.0.1"))
	plain := federationtest.Listen(t, "127.0.0.1:0")
	n.WellKnown(federationtest.Redirect("http://" + plain.Name() + "/.well-known/matrix/server"))
	require.NoError(t, n.verify(t, "hs.test"))
	require.Zero(t, plain.Connections())
}

// A name server that is silent takes no more than the timeout, once: for a
// moment nobody else waits for it.
func TestASilentNameServer(t *testing.T) {
	n := newNamed(t, at("127.0.0.1"))
	n.dns.fallSilent()
	began := time.Now()
	require.ErrorContains(t, n.verify(t, "hs.test"), "in time")
	require.Less(t, time.Since(began), 2*timeout)
	lookups := n.dns.Lookups()
	require.ErrorContains(t, n.verify(t, "hs.test"), "in time")
	require.Equal(t, lookups, n.dns.Lookups())
	require.Equal(t, 1, n.WellKnownRequests())
}

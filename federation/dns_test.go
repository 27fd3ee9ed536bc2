package federation_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

// fakeDNS is a name server of the test's own.
type fakeDNS struct {
	resolver *net.Resolver // asks this name server alone

	mu      sync.Mutex
	lookups int
	// addresses of a name: each look-up takes the next, the last one stays.
	// The name "*" is every other name.
	addresses map[string][]string
	// srv records, as name of the record to targets.
	srv map[string][]net.SRV
	// mute about SRV records: questions for them get no answer at all.
	mute bool
}

func newDNS(t *testing.T, addresses map[string][]string) *fakeDNS {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	d := &fakeDNS{addresses: addresses, srv: map[string][]net.SRV{}}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	serving.Go(func() { d.serve(server) })
	d.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	return d
}

func (d *fakeDNS) serve(server net.PacketConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := server.ReadFrom(buffer)
		if err != nil {
			return
		}
		if reply, err := d.reply(buffer[:n]); err == nil {
			_, _ = server.WriteTo(reply, from)
		}
	}
}

// Lookups is how often any name was asked for.
func (d *fakeDNS) Lookups() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lookups
}

func (d *fakeDNS) reply(query []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(query); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookups++
	message.Header.Response = true
	message.Additionals = nil
	question := message.Questions[0]
	if d.mute && question.Type == dnsmessage.TypeSRV {
		return nil, errors.New("mute")
	}
	header := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: 1}
	name := strings.TrimSuffix(question.Name.String(), ".")
	switch question.Type {
	case dnsmessage.TypeA:
		if address := d.next(name); address != "" {
			message.Answers = append(message.Answers, dnsmessage.Resource{
				Header: header, Body: &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()}})
		}
	case dnsmessage.TypeSRV:
		for _, record := range d.srv[name] {
			message.Answers = append(message.Answers, dnsmessage.Resource{
				Header: header, Body: &dnsmessage.SRVResource{
					Target: dnsmessage.MustNewName(record.Target + "."), Port: record.Port, Priority: record.Priority}})
		}
	}
	if _, known := d.addresses[name]; len(message.Answers) == 0 && !known {
		message.Header.RCode = dnsmessage.RCodeNameError
	}
	return message.Pack()
}

func (d *fakeDNS) next(name string) string {
	if _, ok := d.addresses[name]; !ok {
		name = "*"
	}
	list := d.addresses[name]
	if len(list) == 0 {
		return ""
	}
	if len(list) > 1 {
		d.addresses[name] = list[1:]
	}
	return list[0]
}

func (d *fakeDNS) setSRV(records map[string][]net.SRV) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.srv = records
}

func (d *fakeDNS) fallSilent() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mute = true
}

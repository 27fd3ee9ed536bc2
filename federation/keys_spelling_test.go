package federation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	mautrix "maunium.net/go/mautrix/federation"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/federation/federationtest"
)

// A stranger who spells a server's name otherwise has it asked once, like
// everybody, and is not believed; whoever spells it right does not suffer.
func TestANameOtherwiseSpelt(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	name := "hs.test:" + h.Port()
	h.Keys(federationtest.Published(func(k *mautrix.ServerKeyResponse) { k.ServerName = name }, h.Key()))
	dns := newDNS(t, map[string][]string{"hs.test": {"127.0.0.1"}})
	s := newSignatures(t, h, func(o *federation.Options) {
		policy, err := federation.NewPolicy([]config.FederationRule{{Server: "hs.test:*", Access: "join"}})
		require.NoError(t, err)
		o.Policy, o.DNS = policy, dns.resolver
	})
	c := &clock{now: time.Now()}
	s.SetClock(c.Now)
	good := request(h)
	good.Origin = name
	otherwise := good
	otherwise.Origin = strings.ToUpper(name)
	verify := func(r federationtest.Request) error {
		_, _, err := s.Verify(t.Context(), came(r, federationtest.Sign(t, h.Key(), r)))
		return err
	}
	for range 2 {
		require.ErrorIs(t, verify(otherwise), federation.ErrUnknownKey)
		require.NoError(t, verify(good))
	}
	require.Equal(t, 1, h.KeyRequests())
	c.turn(time.Hour)
	require.ErrorIs(t, verify(otherwise), federation.ErrUnknownKey)
	h.Rotate()
	h.Keys(federationtest.Published(func(k *mautrix.ServerKeyResponse) { k.ServerName = name }, h.Key()))
	c.turn(time.Minute)
	require.ErrorIs(t, verify(otherwise), federation.ErrUnknownKey)
	require.NoError(t, verify(good), "the stranger's question has found the new key")
}

package federation_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/jsontime"
	mautrix "maunium.net/go/mautrix/federation"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/federation/federationtest"
)

// The answer of a server about its keys is believed for what it is good for.
func TestPublishedKeys(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	key, second, short := h.Key(), mautrix.GenerateSigningKey(), id.KeyID("ed25519:short")
	published := func(change func(*mautrix.ServerKeyResponse), signers ...*mautrix.SigningKey) federationtest.Misbehaviour {
		return federationtest.Published(change, signers...)
	}
	for name, c := range map[string]struct {
		answer federationtest.Misbehaviour
		want   error // nil: it is good
	}{
		"as it should be":              {published(func(*mautrix.ServerKeyResponse) {}, key), nil},
		"two keys":                     {published(func(k *mautrix.ServerKeyResponse) { k.VerifyKeys[second.ID] = mautrix.ServerVerifyKey{Key: second.Pub} }, key, second), nil},
		"a second that has not signed": {published(func(k *mautrix.ServerKeyResponse) { k.VerifyKeys[second.ID] = mautrix.ServerVerifyKey{Key: second.Pub} }, key), nil},
		"a second that is too short":   {published(func(k *mautrix.ServerKeyResponse) { k.VerifyKeys[short] = mautrix.ServerVerifyKey{Key: "AAAA"} }, key), nil},
		"not signed":                   {published(func(*mautrix.ServerKeyResponse) {}), federation.ErrNoKeys},
		"signed by another":            {published(func(*mautrix.ServerKeyResponse) {}, second), federation.ErrNoKeys},
		"of another server":            {published(func(k *mautrix.ServerKeyResponse) { k.ServerName = "victim.example" }, key), federation.ErrNoKeys},
		"otherwise spelt":              {published(func(k *mautrix.ServerKeyResponse) { k.ServerName += " " }, key), federation.ErrNoKeys},
		"that have ended":              {published(func(k *mautrix.ServerKeyResponse) { k.ValidUntilTS = jsontime.UM(time.Now().Add(-time.Second)) }, key), federation.ErrNoKeys},
		"without an end":               {published(func(k *mautrix.ServerKeyResponse) { k.ValidUntilTS = jsontime.UnixMilli{} }, key), federation.ErrNoKeys},
		"old ones alone": {published(func(k *mautrix.ServerKeyResponse) {
			k.VerifyKeys = nil
			k.OldVerifyKeys = map[id.KeyID]mautrix.OldVerifyKey{key.ID: {Key: key.Pub, ExpiredTS: jsontime.UM(time.Now().Add(time.Hour))}}
		}, key), federation.ErrNoKeys},
		"the old beside a new": {published(func(k *mautrix.ServerKeyResponse) {
			k.VerifyKeys = map[id.KeyID]mautrix.ServerVerifyKey{second.ID: {Key: second.Pub}}
			k.OldVerifyKeys = map[id.KeyID]mautrix.OldVerifyKey{key.ID: {Key: key.Pub}}
		}, key, second), federation.ErrUnknownKey},
		"one both old and new": {published(func(k *mautrix.ServerKeyResponse) {
			k.OldVerifyKeys = map[id.KeyID]mautrix.OldVerifyKey{key.ID: {Key: key.Pub}}
		}, key), federation.ErrNoKeys},
		"nine keys": {published(func(k *mautrix.ServerKeyResponse) {
			for range 8 {
				more := mautrix.GenerateSigningKey()
				k.VerifyKeys[more.ID] = mautrix.ServerVerifyKey{Key: more.Pub}
			}
		}, key), federation.ErrNoKeys},
		"a key too short":      {published(func(k *mautrix.ServerKeyResponse) { k.VerifyKeys[key.ID] = mautrix.ServerVerifyKey{Key: "AAAA"} }, key), federation.ErrNoKeys},
		"no key":               {federationtest.Body(`{"server_name":"{name}","valid_until_ts":9999999999999}`), federation.ErrNoKeys},
		"not JSON":             {federationtest.Body("<html>"), federation.ErrNoKeys},
		"a list":               {federationtest.Body("[]"), federation.ErrNoKeys},
		"deep nesting":         {federationtest.Body(`{"x":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + "}"), federation.ErrNoKeys},
		"a wrong type":         {federationtest.Body(`{"server_name":"{name}","verify_keys":7}`), federation.ErrNoKeys},
		"no answer":            {federationtest.Hang, federation.ErrNoKeys},
		"an endless answer":    {federationtest.Endless, federation.ErrNoKeys},
		"an answer that drips": {federationtest.Drip, federation.ErrNoKeys},
		"a bomb":               {federationtest.GzipBomb, federation.ErrNoKeys},
		"a redirect":           {federationtest.Redirect(""), federation.ErrNoKeys},
		"not found":            {federationtest.Status(404), federation.ErrNoKeys},
		"an error":             {federationtest.Status(500), federation.ErrNoKeys},
		"a broken connection":  {federationtest.Reset, federation.ErrNoKeys},
	} {
		t.Run(name, func(t *testing.T) {
			h.Keys(c.answer)
			s := newSignatures(t, h)
			good := request(h)
			began := time.Now()
			_, _, err := s.Verify(t.Context(), came(good, federationtest.Sign(t, key, good)))
			if c.want == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, c.want)
			}
			require.Less(t, time.Since(began), 2*timeout)
		})
	}
}

// clock is one that is turned by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Keys are asked for once an hour, and not oftener than each half minute
// whatever strangers name; a new one is found, one that was taken back ends.
func TestKeysAreKept(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	s := newSignatures(t, h)
	c := &clock{now: time.Now()}
	s.SetClock(c.Now)
	aDay := func(h *federationtest.Homeserver, w http.ResponseWriter, r *http.Request) {
		federationtest.Published(func(k *mautrix.ServerKeyResponse) {
			k.ValidUntilTS = jsontime.UM(c.Now().Add(24 * time.Hour))
		}, h.Key())(h, w, r)
	}
	h.Keys(aDay)
	good := request(h)
	verify := func(key *mautrix.SigningKey) error {
		_, _, err := s.Verify(t.Context(), came(good, federationtest.Sign(t, key, good)))
		return err
	}
	require.NoError(t, verify(h.Key()))
	for range 20 {
		require.ErrorIs(t, verify(mautrix.GenerateSigningKey()), federation.ErrUnknownKey)
		require.NoError(t, verify(h.Key()))
	}
	require.Equal(t, 1, h.KeyRequests())

	old := h.Rotate()
	require.ErrorIs(t, verify(h.Key()), federation.ErrUnknownKey, "asked a moment ago")
	require.NoError(t, verify(old), "nobody has heard of the change yet")
	c.turn(30 * time.Second)
	require.NoError(t, verify(h.Key()))
	require.Equal(t, 2, h.KeyRequests())
	require.ErrorIs(t, verify(old), federation.ErrUnknownKey)

	h.Rotate()
	c.turn(time.Hour)
	require.NoError(t, verify(h.Key()))
	require.Equal(t, 3, h.KeyRequests())

	// While the server is silent its keys count, until they end.
	h.Keys(federationtest.Status(500))
	c.turn(time.Hour)
	require.NoError(t, verify(h.Key()))
	require.Equal(t, 4, h.KeyRequests())
	require.NoError(t, verify(h.Key()))
	require.Equal(t, 4, h.KeyRequests())
	c.turn(23 * time.Hour)
	require.ErrorIs(t, verify(h.Key()), federation.ErrNoKeys)
	require.ErrorIs(t, verify(h.Key()), federation.ErrNoKeys)
	require.Equal(t, 5, h.KeyRequests())
	h.Keys(aDay)
	c.turn(30 * time.Second)
	require.NoError(t, verify(h.Key()))
}

// However far away a server says that its keys end, they count for a week.
func TestKeysEndAfterAWeek(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	h.Keys(federationtest.Published(func(k *mautrix.ServerKeyResponse) { k.ValidUntilTS = jsontime.UM(time.Now().AddDate(9, 0, 0)) }, h.Key()))
	s := newSignatures(t, h)
	c := &clock{now: time.Now()}
	s.SetClock(c.Now)
	good := request(h)
	verify := func() error {
		_, _, err := s.Verify(t.Context(), came(good, federationtest.Sign(t, h.Key(), good)))
		return err
	}
	require.NoError(t, verify())
	h.Keys(federationtest.Status(500))
	c.turn(7*24*time.Hour - time.Second)
	require.NoError(t, verify())
	c.turn(time.Hour)
	require.ErrorIs(t, verify(), federation.ErrNoKeys)
}

// Keys that stand in the rules are all there are, and nobody is asked.
func TestPinnedKeys(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	pinned := h.Rotate()
	policy, err := federation.NewPolicy([]config.FederationRule{{Server: h.Name(), Access: "join",
		SigningKeys: []string{string(pinned.ID) + " " + string(pinned.Pub)}}})
	require.NoError(t, err)
	s := newSignatures(t, h, func(o *federation.Options) { o.Policy = policy })
	good := request(h)
	_, _, err = s.Verify(t.Context(), came(good, federationtest.Sign(t, pinned, good)))
	require.NoError(t, err)
	_, _, err = s.Verify(t.Context(), came(good, federationtest.Sign(t, h.Key(), good)))
	require.ErrorIs(t, err, federation.ErrUnknownKey)
	named := *h.Key()
	named.ID = pinned.ID
	_, _, err = s.Verify(t.Context(), came(good, federationtest.Sign(t, &named, good)))
	require.ErrorIs(t, err, federation.ErrSignature)
	require.Zero(t, h.Connections())

	require.NoError(t, policy.Replace([]config.FederationRule{{Server: h.Name(), Access: "join"}}))
	_, _, err = s.Verify(t.Context(), came(good, federationtest.Sign(t, h.Key(), good)))
	require.NoError(t, err)
}

// One question is asked for all who wait; who waits too long or in too great a
// crowd is refused, and who has gone does not take the answer from the others.
func TestASlowKeyServer(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	letGo, asked := make(chan struct{}), make(chan struct{}, 1)
	h.Keys(func(h *federationtest.Homeserver, w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-letGo
		federationtest.Published(func(*mautrix.ServerKeyResponse) {}, h.Key())(h, w, r)
	})
	s := newSignatures(t, h, func(o *federation.Options) { o.Config.Timeout = 20 * time.Second })
	good := request(h)
	signed := came(good, federationtest.Sign(t, h.Key(), good))
	first, leave := context.WithCancel(t.Context())
	outcomes := make(chan error, 1000)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_, _, err := s.Verify(first, signed)
		outcomes <- err
	})
	<-asked
	leave()
	for range 499 {
		waiting.Go(func() {
			_, _, err := s.Verify(t.Context(), signed)
			outcomes <- err
		})
	}
	for range 499 - 256 {
		require.ErrorIs(t, <-outcomes, federation.ErrNoKeys)
	}
	close(letGo)
	waiting.Wait()
	close(outcomes)
	for err := range outcomes {
		require.NoError(t, err)
	}
	require.Equal(t, 1, h.KeyRequests())
}

// Of servers that a glob lets join there are more than anybody can count.
func TestKeysAreBounded(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	var dialled sync.Map
	s := newSignatures(t, h, func(o *federation.Options) {
		policy, err := federation.NewPolicy([]config.FederationRule{{Server: "*", Access: "join"}})
		require.NoError(t, err)
		o.Policy, o.Config.AllowNetworks = policy, nil
		o.Dialled(func(address string) { dialled.Store(address, true) })
	})
	for n := range 1100 {
		r := request(h)
		r.Origin = fmt.Sprintf("127.0.%d.%d:1", n/250, n%250+1)
		_, _, err := s.Verify(t.Context(), came(r, federationtest.Sign(t, h.Key(), r)))
		require.ErrorIs(t, err, federation.ErrNoKeys)
	}
	require.Equal(t, 1024, s.KeyServers())
	dialled.Range(func(address, _ any) bool { t.Error("connected to ", address); return true })
}

// FuzzPublishedKeys: whatever a server answers is read without harm, and what
// it has not signed gives no key.
func FuzzPublishedKeys(f *testing.F) {
	f.Add(`{"server_name":"a.example","valid_until_ts":9999999999999,"verify_keys":{"ed25519:1":{"key":"AAAA"}},"signatures":{"a.example":{"ed25519:1":"AA"}}}`)
	f.Add(`{"server_name":"a.example","verify_keys":{"ed25519:1":{"key":"l8Hft5qXKn1vfHrg3p4+W8gELQVo8N13JkluMfmn2sQ"}},"signatures":{"a.example":{"ed25519:1":null}},"x":"\ud800"}`)
	f.Add(`{"server_name":"a.example","valid_until_ts":1e400}`)
	f.Fuzz(func(t *testing.T, answer string) {
		keys, _, err := federation.ReadKeys([]byte(answer), "a.example", time.Unix(0, 0))
		if (err == nil) != (keys > 0) {
			t.Fatalf("%d keys and %v", keys, err)
		}
	})
}

package federation_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/federation/federationtest"
	"passerelle/focus/matrixrtc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const timeout = time.Second

// newOpenID trusts the homeserver's authority, allows its server to join, and
// loopback addresses.
func newOpenID(t *testing.T, h *federationtest.Homeserver, change ...func(*federation.OpenIDOptions)) *federation.OpenID {
	t.Helper()
	policy, err := federation.NewPolicy([]config.FederationRule{{Server: "127.0.0.1:*", Access: "join"}, {Server: "*.test", Access: "join"}})
	require.NoError(t, err)
	o := federation.OpenIDOptions{
		Policy: policy,
		Config: config.Federation{Timeout: timeout, AllowNetworks: []string{"127.0.0.0/8"}, CAFiles: []string{h.CAFile()}},
		Log:    zerolog.Nop(), Registerer: prometheus.NewRegistry(),
	}
	for _, c := range change {
		c(&o)
	}
	openID, err := federation.NewOpenID(o)
	require.NoError(t, err)
	t.Cleanup(openID.Close)
	return openID
}

func token(h *federationtest.Homeserver, text string) matrixrtc.OpenIDToken {
	return matrixrtc.OpenIDToken{AccessToken: text, MatrixServerName: h.Name()}
}

func TestVerify(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, h)
	user, err := openID.Verify(t.Context(), token(h, h.Issue("ana")))
	require.NoError(t, err)
	require.Equal(t, h.User("ana"), user.String())

	_, err = openID.Verify(t.Context(), token(h, "unknown"))
	require.ErrorIs(t, err, federation.ErrRejected)
	require.Equal(t, 2, h.Requests(), "one question for each token, and no second try")
}

func TestOneConnectionServesMany(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, h)
	for range 200 {
		_, err := openID.Verify(t.Context(), token(h, h.Issue("ana")))
		require.NoError(t, err)
	}
	require.Equal(t, 1, h.Connections())
}

// Whatever a hostile homeserver answers gains nothing, costs no more than the
// timeout, and leaves the token out of the error.
func TestHostileAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		misbehave federationtest.Misbehaviour
		want      error
	}{
		"a user of another server":        {federationtest.Body(`{"sub":"@ana:victim.example"}`), federation.ErrForeignSubject},
		"its own name as a prefix":        {federationtest.Body(`{"sub":"@ana:{name}.evil.example"}`), federation.ErrForeignSubject},
		"its own name after another":      {federationtest.Body(`{"sub":"@ana:victim.example:{name}"}`), federation.ErrForeignSubject},
		"its own name without the port":   {federationtest.Body(`{"sub":"@ana:127.0.0.1"}`), federation.ErrForeignSubject},
		"no user":                         {federationtest.Body(`{}`), federation.ErrUnreachable},
		"an empty user":                   {federationtest.Body(`{"sub":""}`), federation.ErrUnreachable},
		"no localpart":                    {federationtest.Body(`{"sub":"@:{name}"}`), federation.ErrUnreachable},
		"no sigil":                        {federationtest.Body(`{"sub":"ana:{name}"}`), federation.ErrUnreachable},
		"a user of the wrong type":        {federationtest.Body(`{"sub":["@ana:{name}"]}`), federation.ErrUnreachable},
		"a user with a control character": {federationtest.Body(`{"sub":"@a\u0000na:{name}"}`), federation.ErrUnreachable},
		"a user that is too long":         {federationtest.Body(`{"sub":"@` + strings.Repeat("a", 300) + `:{name}"}`), federation.ErrUnreachable},
		"not JSON":                        {federationtest.Body(`<html>`), federation.ErrUnreachable},
		"two documents":                   {federationtest.Body(`{"sub":"@ana:{name}"}{}`), federation.ErrUnreachable},
		"deep nesting":                    {federationtest.Body(strings.Repeat("[", 60000)), federation.ErrUnreachable},
		"an endless answer":               {federationtest.Endless, federation.ErrUnreachable},
		"an answer that drips":            {federationtest.Drip, federation.ErrUnreachable},
		"no answer":                       {federationtest.Hang, federation.ErrUnreachable},
		"a broken connection":             {federationtest.Reset, federation.ErrUnreachable},
		"headers of a megabyte":           {federationtest.HugeHeaders, federation.ErrUnreachable},
		"a redirect to itself":            {federationtest.Redirect(""), federation.ErrUnreachable},
		"a redirect to loopback":          {federationtest.Redirect("https://127.0.0.1:1/"), federation.ErrUnreachable},
		"a redirect to metadata":          {federationtest.Redirect("http://169.254.169.254/latest"), federation.ErrUnreachable},
		"too many requests":               {federationtest.Status(429), federation.ErrUnreachable},
		"a server error":                  {federationtest.Status(500), federation.ErrUnreachable},
		"nothing found":                   {federationtest.Status(404), federation.ErrUnreachable},
		"forbidden":                       {federationtest.Status(403), federation.ErrRejected},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := federationtest.New(t, federationtest.GoodCertificate)
			h.Misbehave(c.misbehave)
			began := time.Now()
			user, err := newOpenID(t, h).Verify(t.Context(), token(h, "SECRETTOKEN"))
			require.ErrorIs(t, err, c.want)
			require.Empty(t, user)
			require.NotContains(t, err.Error(), "SECRETTOKEN")
			require.Less(t, time.Since(began), 5*timeout)
			require.LessOrEqual(t, h.Requests(), 1)
		})
	}
}

func TestCertificates(t *testing.T) {
	for name, certificate := range map[string]federationtest.Certificate{
		"unknown authority": federationtest.UnknownAuthority,
		"another name":      federationtest.WrongName,
		"expired":           federationtest.Expired,
	} {
		t.Run(name, func(t *testing.T) {
			h := federationtest.New(t, certificate)
			_, err := newOpenID(t, h).Verify(t.Context(), token(h, h.Issue("ana")))
			require.ErrorIs(t, err, federation.ErrUnreachable)
			require.Zero(t, h.Requests())
		})
	}
}

func TestTheTokenOfAnotherServer(t *testing.T) {
	a := federationtest.New(t, federationtest.GoodCertificate)
	b := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, a, func(o *federation.OpenIDOptions) { o.Config.CAFiles = []string{a.CAFile(), b.CAFile()} })
	_, err := openID.Verify(t.Context(), token(a, b.Issue("bo")))
	require.ErrorIs(t, err, federation.ErrRejected)
}

func TestServersThatThePolicyDoesNotNameAreNotAsked(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, h, func(o *federation.OpenIDOptions) {
		policy, err := federation.NewPolicy([]config.FederationRule{{Server: "friend.example", Access: "join"}})
		require.NoError(t, err)
		o.Policy, o.DNS = policy, noDNS(t)
	})
	for _, server := range []string{h.Name(), "evil.example", "friend.example.evil.example", "", "friend.example/", "a b", "friend.example:0x1"} {
		_, err := openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: "x", MatrixServerName: server})
		require.ErrorIs(t, err, federation.ErrNotAllowed, server)
	}
	require.Zero(t, h.Connections())
}

func TestAddressesThatAreNotPublic(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	_, port, err := net.SplitHostPort(h.Name())
	require.NoError(t, err)
	for name, server := range map[string]string{
		"loopback":               h.Name(),
		"loopback, all of it":    "127.1.2.3:" + port,
		"unspecified":            "0.0.0.0:" + port,
		"IPv6 loopback":          "[::1]:" + port,
		"mapped loopback":        "[::ffff:127.0.0.1]:" + port,
		"NAT64 of loopback":      "[64:ff9b::7f00:1]:" + port,
		"a name of loopback":     "localhost.test:" + port,
		"short form of loopback": "127.1:" + port,
	} {
		t.Run(name, func(t *testing.T) {
			openID := newOpenID(t, h, func(o *federation.OpenIDOptions) {
				policy, err := federation.NewPolicy([]config.FederationRule{{Server: "*", Access: "create"}})
				require.NoError(t, err)
				o.Policy, o.Config.AllowNetworks = policy, nil
				o.DNS = answerDNS(t, "127.0.0.1")
			})
			_, err := openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: h.Issue("ana"), MatrixServerName: server})
			require.ErrorIs(t, err, federation.ErrUnreachable)
			require.Zero(t, h.Connections())
		})
	}
}

// A slow server must not keep others waiting, and one that keeps failing is
// left alone.
func TestASlowServerDelaysNobodyElse(t *testing.T) {
	slow := federationtest.New(t, federationtest.GoodCertificate)
	slow.Misbehave(federationtest.Hang)
	good := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, slow, func(o *federation.OpenIDOptions) {
		o.Config.CAFiles = []string{slow.CAFile(), good.CAFile()}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for range 100 {
		asking.Go(func() { _, _ = openID.Verify(ctx, token(slow, "x")) })
	}
	for range 50 {
		_, err := openID.Verify(t.Context(), token(good, good.Issue("ana")))
		require.NoError(t, err)
	}
}

func TestAServerThatKeepsFailingIsLeftAlone(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	h.Misbehave(federationtest.Status(500))
	openID := newOpenID(t, h)
	for range 50 {
		_, err := openID.Verify(t.Context(), token(h, "x"))
		require.ErrorIs(t, err, federation.ErrUnreachable)
	}
	require.Equal(t, 5, h.Requests())
}

// noDNS fails the test when anybody looks a name up.
func noDNS(t *testing.T) *net.Resolver {
	t.Helper()
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("a name was looked up")
		return nil, net.ErrClosed
	}}
}

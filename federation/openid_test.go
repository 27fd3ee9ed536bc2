package federation_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
func newOpenID(t *testing.T, h *federationtest.Homeserver, change ...func(*federation.Options)) *federation.OpenID {
	t.Helper()
	policy, err := federation.NewPolicy([]config.FederationRule{{Server: "127.0.0.1:*", Access: "join"}, {Server: "*.test", Access: "join"}, {Server: "*.test:*", Access: "join"}})
	require.NoError(t, err)
	o := federation.Options{
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
		"unauthorized":                    {federationtest.Status(401), federation.ErrRejected},
		"a user, created":                 {federationtest.StatusBody(201, `{"sub":"@ana:{name}"}`), federation.ErrUnreachable},
		"a user that is null":             {federationtest.Body(`{"sub":null}`), federation.ErrUnreachable},
		"a closed connection":             {federationtest.Close, federation.ErrUnreachable},
		"a bomb":                          {federationtest.GzipBomb, federation.ErrUnreachable},
		"interim answers without end":     {federationtest.EndlessInterim, federation.ErrUnreachable},
		"headers that drip":               {federationtest.DripHeaders, federation.ErrUnreachable},
		"the token as a status":           {federationtest.Raw("HTTP/1.1 {token} OK\r\n\r\n"), federation.ErrUnreachable},
		"the token as a header":           {federationtest.Raw("HTTP/1.1 200 OK\r\n{token}\r\n\r\n"), federation.ErrUnreachable},
		"the token as a length":           {federationtest.Raw("HTTP/1.1 200 OK\r\nContent-Length: {token}\r\n\r\n"), federation.ErrUnreachable},
		"the token as an encoding":        {federationtest.Raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: {token}\r\n\r\n"), federation.ErrUnreachable},
		"the token as a chunk":            {federationtest.Raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{token}\r\n"), federation.ErrUnreachable},
		"the token as a place":            {federationtest.Raw("HTTP/1.1 302 {token}\r\nLocation: https://{token}/\r\n\r\n"), federation.ErrUnreachable},
		"the token as HTTP/2":             {federationtest.Raw("PRI * HTTP/2.0 {token}\r\n\r\n"), federation.ErrUnreachable},
		"less than it says":               {federationtest.Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), federation.ErrUnreachable},
		"another protocol":                {federationtest.Raw("SSH-2.0-OpenSSH_9.9 {token}\r\n"), federation.ErrUnreachable},
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

// Both sides of the limit on a body.
func TestTheLargestAnswer(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, h)
	answer := `{"sub":"` + h.User("ana") + `"}`
	h.Misbehave(federationtest.Body(answer + strings.Repeat(" ", 64<<10-len(answer))))
	_, err := openID.Verify(t.Context(), token(h, "x"))
	require.NoError(t, err)
	h.Misbehave(federationtest.Body(answer + strings.Repeat(" ", 64<<10-len(answer)+1)))
	_, err = openID.Verify(t.Context(), token(h, "x"))
	require.ErrorContains(t, err, "too large")
	h.Misbehave(federationtest.Endless)
	began := time.Now()
	_, err = openID.Verify(t.Context(), token(h, "x"))
	require.ErrorContains(t, err, "too large")
	require.Less(t, time.Since(began), timeout)
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
	openID := newOpenID(t, a, func(o *federation.Options) { o.Config.CAFiles = []string{a.CAFile(), b.CAFile()} })
	_, err := openID.Verify(t.Context(), token(a, b.Issue("bo")))
	require.ErrorIs(t, err, federation.ErrRejected)
}

func TestServersThatThePolicyDoesNotNameAreNotAsked(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, h, func(o *federation.Options) {
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
			openID := newOpenID(t, h, func(o *federation.Options) {
				policy, err := federation.NewPolicy([]config.FederationRule{{Server: "*", Access: "create"}})
				require.NoError(t, err)
				o.Policy, o.Config.AllowNetworks = policy, nil
				o.DNS = newDNS(t, at("127.0.0.1")).resolver
			})
			_, err := openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: h.Issue("ana"), MatrixServerName: server})
			require.ErrorIs(t, err, federation.ErrUnreachable)
			require.Zero(t, h.Connections())
		})
	}
}

// noDNS fails the test when anybody looks a name up.
func noDNS(t *testing.T) *net.Resolver {
	t.Helper()
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("a name was looked up")
		return nil, net.ErrClosed
	}}
}

func TestOptionsAreChecked(t *testing.T) {
	policy, err := federation.NewPolicy(nil)
	require.NoError(t, err)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for want, o := range map[string]federation.Options{
		"no policy":                 {Config: config.Federation{Timeout: timeout}},
		"federation.timeout":        {Policy: policy},
		"federation.allow_networks": {Policy: policy, Config: config.Federation{Timeout: timeout, AllowNetworks: []string{"10.0.0.1"}}},
		"no such file":              {Policy: policy, Config: config.Federation{Timeout: timeout, CAFiles: []string{empty + "x"}}},
		"holds no certificate":      {Policy: policy, Config: config.Federation{Timeout: timeout, CAFiles: []string{empty}}},
	} {
		_, err := federation.NewOpenID(o)
		require.ErrorContains(t, err, want)
	}
}

func BenchmarkVerify(b *testing.B) {
	h := federationtest.New(b, federationtest.GoodCertificate)
	policy, err := federation.NewPolicy([]config.FederationRule{{Server: h.Name(), Access: "join"}})
	require.NoError(b, err)
	openID, err := federation.NewOpenID(federation.Options{
		Policy: policy,
		Config: config.Federation{Timeout: 5 * time.Second, AllowNetworks: []string{"127.0.0.0/8"}, CAFiles: []string{h.CAFile()}},
	})
	require.NoError(b, err)
	defer openID.Close()
	asked := matrixrtc.OpenIDToken{AccessToken: h.Issue("ana"), MatrixServerName: h.Name()}
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := openID.Verify(b.Context(), asked); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(h.Connections()), "connections")
}

// TestInsist: with it a server is asked however often it failed before.
func TestInsist(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, h, func(o *federation.Options) { o.Insist = true })
	h.Misbehave(func(_ *federationtest.Homeserver, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	})
	for range 20 {
		_, err := openID.Verify(t.Context(), token(h, "any"))
		require.ErrorIs(t, err, federation.ErrUnreachable)
	}
	require.Equal(t, 20, h.Requests())
	h.Misbehave(nil)
	_, err := openID.Verify(t.Context(), token(h, h.Issue("ana")))
	require.NoError(t, err)
}

func TestSkipVerifyTLS(t *testing.T) {
	for _, wrong := range []federationtest.Certificate{federationtest.UnknownAuthority, federationtest.WrongName, federationtest.Expired} {
		h := federationtest.New(t, wrong)
		_, err := newOpenID(t, h).Verify(t.Context(), token(h, h.Issue("ana")))
		require.ErrorIs(t, err, federation.ErrUnreachable)
		_, err = newOpenID(t, h, func(o *federation.Options) { o.SkipVerifyTLS = true }).Verify(t.Context(), token(h, h.Issue("ana")))
		require.NoError(t, err)
	}
}

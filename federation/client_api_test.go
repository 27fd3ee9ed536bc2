package federation_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/federation/federationtest"
)

// clientAPIs trusts the homeserver's authority and may connect to 127.0.0.1
// alone, which stands for the public addresses.
func clientAPIs(t *testing.T, h *federationtest.Homeserver, addresses map[string][]string) *federation.ClientAPIs {
	t.Helper()
	policy, err := federation.NewPolicy([]config.FederationRule{{Server: "join.test", Access: "join"}, {Server: "*", Access: "create"}})
	require.NoError(t, err)
	o := federation.Options{
		Policy: policy, Log: zerolog.Nop(), DNS: newDNS(t, addresses).resolver,
		Config: config.Federation{Timeout: timeout, AllowNetworks: []string{"127.0.0.1/32"}, CAFiles: []string{h.CAFile()}},
	}
	o.Through(func(address string) string {
		host, port, err := net.SplitHostPort(address)
		if err == nil && port == "443" {
			return net.JoinHostPort(host, h.Port())
		}
		return address
	})
	c, err := federation.NewClientAPIs(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// serve makes that the answer to requests for the document.
func serve(h *federationtest.Homeserver, m federationtest.Misbehaviour) *atomic.Int64 {
	var requests atomic.Int64
	h.Handle("GET /.well-known/matrix/client", func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		m(h, w, r)
	})
	return &requests
}

func document(base string) federationtest.Misbehaviour {
	return federationtest.Body(fmt.Sprintf(`{"m.homeserver":{"base_url":%q},"m.identity_server":{"base_url":"https://id.test"}}`, base))
}

func TestClientAPIs(t *testing.T) {
	for name, c := range map[string]struct {
		document federationtest.Misbehaviour
		want     string // "" is none
	}{
		"an address":               {document("https://matrix.hs.test"), "https://matrix.hs.test"},
		"an address with a slash":  {document("https://matrix.hs.test/"), "https://matrix.hs.test"},
		"an address with a path":   {document("https://hs.test:8448/matrix/"), "https://hs.test:8448/matrix"},
		"no document":              {federationtest.Status(404), ""},
		"a failure":                {federationtest.StatusBody(500, `{"m.homeserver":{"base_url":"https://hs.test"}}`), ""},
		"not JSON":                 {federationtest.Body(`<html>`), ""},
		"nothing in it":            {federationtest.Body(`{}`), ""},
		"a number":                 {federationtest.Body(`{"m.homeserver":{"base_url":7}}`), ""},
		"no TLS":                   {document("http://hs.test"), ""},
		"no host":                  {document("https:///x"), ""},
		"no scheme":                {document("hs.test"), ""},
		"a user":                   {document("https://me:secret@hs.test"), ""},
		"a query":                  {document("https://hs.test/?x="), ""},
		"a fragment":               {document("https://hs.test/#x"), ""},
		"too large":                {federationtest.Body(`{"m.homeserver":{"base_url":"https://hs.test"},"x":"` + strings.Repeat("x", 64<<10) + `"}`), ""},
		"endless":                  {federationtest.Endless, ""},
		"a drip":                   {federationtest.Drip, ""},
		"it hangs":                 {federationtest.Hang, ""},
		"a redirect inside":        {federationtest.Redirect("https://inside.test/.well-known/matrix/client"), ""},
		"a redirect without TLS":   {federationtest.Redirect("http://hs.test/"), ""},
		"redirects without an end": {federationtest.Redirect("https://hs.test/.well-known/matrix/client"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := federationtest.New(t, federationtest.GoodCertificate)
			requests := serve(h, c.document)
			apis := clientAPIs(t, h, map[string][]string{"hs.test": {"127.0.0.1"}, "inside.test": {"127.0.0.2"}})
			for range 3 {
				began := time.Now()
				base, err := apis.Find(t.Context(), "hs.test")
				require.Less(t, time.Since(began), 2*timeout)
				if c.want == "" {
					require.ErrorIs(t, err, federation.ErrNoClientAPI)
					require.EqualError(t, err, federation.ErrNoClientAPI.Error())
				} else {
					require.NoError(t, err)
					require.Equal(t, c.want, base.String())
				}
			}
			require.LessOrEqual(t, requests.Load(), int64(4), "once, and its redirects; then from memory")
		})
	}
}

func TestClientAPIsOfWhoMayCreate(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	requests := serve(h, document("https://hs.test"))
	apis := clientAPIs(t, h, at("127.0.0.1"))
	for _, name := range []string{"join.test", "no/name", ""} {
		_, err := apis.Find(t.Context(), name)
		require.ErrorIs(t, err, federation.ErrNotAllowed)
	}
	require.Zero(t, requests.Load())
}

// Calls to an address that a document names go through the filter as well, and
// follow no redirect.
func TestClientAPIsLeadNowhereInside(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	serve(h, document("https://inside.test"))
	h.Handle("POST /elsewhere", federationtestRedirect)
	apis := clientAPIs(t, h, map[string][]string{"hs.test": {"127.0.0.1"}, "inside.test": {"127.0.0.2"}})
	base, err := apis.Find(t.Context(), "hs.test")
	require.NoError(t, err)
	call := func(url string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("{}"))
		require.NoError(t, err)
		return apis.Client().Do(request)
	}
	_, err = call(base.String())
	require.ErrorContains(t, err, "address")
	answer, err := call("https://hs.test/elsewhere")
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusTemporaryRedirect, answer.StatusCode)
}

func federationtestRedirect(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "https://hs.test/other", http.StatusTemporaryRedirect)
}

// Many who ask at once share one question.
func TestClientAPIsConcurrently(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	requests := serve(h, document("https://matrix.hs.test"))
	apis := clientAPIs(t, h, at("127.0.0.1"))
	done := make(chan error, 50)
	for range cap(done) {
		go func() {
			_, err := apis.Find(t.Context(), "HS.test")
			done <- err
		}()
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
	require.Equal(t, int64(1), requests.Load())
}

func FuzzClientDocument(f *testing.F) {
	f.Add([]byte(`{"m.homeserver":{"base_url":"https://hs.test/"}}`))
	f.Add([]byte(`{"m.homeserver":{"base_url":"https://[::1%25eth0]:0/%2e%2e/"}}`))
	f.Add([]byte(`{"m.homeserver":{"base_url":"https:hs.test"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		base, err := federation.ClientBase(body)
		if err != nil {
			return
		}
		// Whether http is enough is decided by who has asked for the document.
		if base.Scheme != "https" && base.Scheme != "http" || base.Hostname() == "" || base.User != nil || strings.HasSuffix(base.String(), "/") {
			t.Fatalf("not an address to call: %q", base)
		}
	})
}

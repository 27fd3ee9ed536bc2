package federation_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	mautrix "maunium.net/go/mautrix/federation"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/federation/federationtest"
)

const (
	ownServer = "own.example"
	tokenURI  = "/_matrix/federation/v1/rtc/livekit/get_token"
	tokenBody = `{"member_id":"m","room_id":"!r","slot_id":"m.call#ROOM","url":"wss://rtc.own.example","user_id":"@bo:NAME"}`
)

func newSignatures(t *testing.T, h *federationtest.Homeserver, change ...func(*federation.Options)) *federation.Signatures {
	t.Helper()
	policy, err := federation.NewPolicy([]config.FederationRule{
		{Server: "denied.example", Access: "deny"}, {Server: "127.0.0.1:*", Access: "join"}, {Server: ownServer, Access: "create"}})
	require.NoError(t, err)
	o := federation.Options{
		Policy: policy, Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
		Config: config.Federation{Timeout: timeout, AllowNetworks: []string{"127.0.0.0/8"}, CAFiles: []string{h.CAFile()}},
	}
	for _, c := range change {
		c(&o)
	}
	signatures, err := federation.NewSignatures(o, ownServer)
	require.NoError(t, err)
	t.Cleanup(signatures.Close)
	return signatures
}

// request is a good one of the homeserver.
func request(h *federationtest.Homeserver) federationtest.Request {
	return federationtest.Request{
		Method: http.MethodPost, URI: tokenURI, Origin: h.Name(), Destination: ownServer,
		Body: strings.Replace(tokenBody, "NAME", h.Name(), 1),
	}
}

// came is a request as it came, with those headers.
func came(r federationtest.Request, headers ...string) federation.SignedRequest {
	return federation.SignedRequest{Authorization: headers, Method: r.Method, URI: r.URI, Body: []byte(r.Body)}
}

func TestSignedRequest(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	s := newSignatures(t, h)
	good := request(h)
	for range 3 { // the same again is good again
		origin, content, err := s.Verify(t.Context(), came(good, federationtest.Sign(t, h.Key(), good)))
		require.NoError(t, err)
		require.Equal(t, h.Name(), origin)
		require.Equal(t, good.Body, string(content))
	}
	spaced := good
	spaced.Body = strings.NewReplacer(",", " ,\n", "wss:", `wss\u003a`, "//", `\/\/`).Replace(good.Body)
	_, content, err := s.Verify(t.Context(), came(spaced, federationtest.Sign(t, h.Key(), good)))
	require.NoError(t, err)
	require.Equal(t, good.Body, string(content), "what was signed is read")
	names := strings.NewReplacer("origin=", "ORIGIN=", "sig=", "Sig=", "X-Matrix", "x-matrix")
	_, _, err = s.Verify(t.Context(), came(good, names.Replace(federationtest.Sign(t, h.Key(), good))))
	require.NoError(t, err)
	require.Equal(t, 1, h.KeyRequests())
}

// Whatever is not as it was signed is refused; and nothing goes out to servers
// that may not join.
func TestSignedRequestRefused(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	other := federationtest.New(t, federationtest.GoodCertificate)
	stranger := mautrix.GenerateSigningKey()
	replace := func(old, fresh string) func(*federation.SignedRequest) {
		return func(r *federation.SignedRequest) {
			require.Contains(t, r.Authorization[0], old)
			r.Authorization[0] = strings.Replace(r.Authorization[0], old, fresh, 1)
		}
	}
	body := func(text string) func(*federation.SignedRequest) {
		return func(r *federation.SignedRequest) { r.Body = []byte(text) }
	}
	for name, c := range map[string]struct {
		sign   func(*federationtest.Request) // before
		key    *mautrix.SigningKey
		change func(*federation.SignedRequest) // after it was signed
		want   error
		asked  int
	}{
		"no header":              {change: func(r *federation.SignedRequest) { r.Authorization = nil }, want: federation.ErrNotSigned},
		"two headers":            {change: func(r *federation.SignedRequest) { r.Authorization = append(r.Authorization, r.Authorization[0]) }, want: federation.ErrNotSigned},
		"to another server":      {sign: func(r *federationtest.Request) { r.Destination = "other.example" }, want: federation.ErrOtherDestination},
		"to us, otherwise spelt": {sign: func(r *federationtest.Request) { r.Destination = "OWN.example" }, want: federation.ErrOtherDestination},
		"signed to another":      {sign: func(r *federationtest.Request) { r.Destination = "other.example" }, change: replace("other.example", ownServer), want: federation.ErrSignature, asked: 1},
		"a denied server":        {sign: func(r *federationtest.Request) { r.Origin = "denied.example" }, want: federation.ErrNotAllowed},
		"a server of no rule":    {sign: func(r *federationtest.Request) { r.Origin = "localhost:" + h.Port() }, want: federation.ErrNotAllowed},
		"no server":              {sign: func(r *federationtest.Request) { r.Origin = "127.0.0.1:x" }, want: federation.ErrNotAllowed},
		"our own name":           {sign: func(r *federationtest.Request) { r.Origin = ownServer }, want: federation.ErrNotAllowed},
		"ours, otherwise spelt":  {sign: func(r *federationtest.Request) { r.Origin = "OWN.example" }, want: federation.ErrNotAllowed},
		"in another's name":      {sign: func(r *federationtest.Request) { r.Origin = other.Name() }, want: federation.ErrNoKeys}, // its certificate is not trusted here
		"a key of nobody":        {key: stranger, want: federation.ErrUnknownKey, asked: 1},
		"a key by another name":  {key: stranger, change: replace(string(stranger.ID), string(h.Key().ID)), want: federation.ErrSignature, asked: 1},
		"another algorithm":      {change: replace("ed25519:", "curve25519:"), want: federation.ErrUnknownKey},
		"no algorithm":           {change: replace("ed25519:", ""), want: federation.ErrUnknownKey},
		"a long key ID":          {change: replace("ed25519:", "ed25519:"+strings.Repeat("x", 128)), want: federation.ErrUnknownKey},
		"no signature":           {change: replace(`sig="`, `sig="!`), want: federation.ErrSignature, asked: 1},
		"a padded signature": {change: func(r *federation.SignedRequest) {
			r.Authorization[0] = strings.TrimSuffix(r.Authorization[0], `"`) + `=="`
		}, want: federation.ErrSignature, asked: 1},
		"another method":      {change: func(r *federation.SignedRequest) { r.Method = http.MethodPut }, want: federation.ErrSignature, asked: 1},
		"another path":        {change: func(r *federation.SignedRequest) { r.URI = strings.Replace(r.URI, "v1", "v2", 1) }, want: federation.ErrSignature, asked: 1},
		"a query":             {change: func(r *federation.SignedRequest) { r.URI += "?x=1" }, want: federation.ErrSignature, asked: 1},
		"another user":        {change: body(strings.Replace(request(h).Body, "@bo", "@eve", 1)), want: federation.ErrSignature, asked: 1},
		"one field more":      {change: body(strings.Replace(request(h).Body, "{", `{"a":1,`, 1)), want: federation.ErrSignature, asked: 1},
		"a field twice":       {change: body(strings.Replace(request(h).Body, "{", `{"user_id":"@eve:`+h.Name()+`",`, 1)), want: federation.ErrSignature, asked: 1},
		"half of a surrogate": {change: body(`{"a":"\ud83d","b":"cccc"}`), want: federation.ErrSignature, asked: 1},
		"no body":             {change: body(""), want: federation.ErrContent},
		"no object":           {change: body(`["x"]`), want: federation.ErrContent},
		"two objects":         {change: body(`{}{}`), want: federation.ErrContent},
		"half an object":      {change: body(`{"a":`), want: federation.ErrContent},
		"deep nesting":        {change: body(`{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "}"), want: federation.ErrContent},
	} {
		t.Run(name, func(t *testing.T) {
			var dialled sync.Map
			s := newSignatures(t, h, func(o *federation.Options) {
				o.Dialled(func(address string) { dialled.Store(address, true) })
			})
			r, key := request(h), h.Key()
			if c.sign != nil {
				c.sign(&r)
			}
			if c.key != nil {
				key = c.key
			}
			signed := came(r, federationtest.Sign(t, key, r))
			if c.change != nil {
				c.change(&signed)
			}
			before := h.KeyRequests()
			_, _, err := s.Verify(t.Context(), signed)
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.asked, h.KeyRequests()-before)
			if c.asked == 0 && c.want != federation.ErrNoKeys {
				dialled.Range(func(address, _ any) bool { t.Error("connected to ", address); return true })
			}
		})
	}
}

func TestSignedRequestsAreCounted(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	registry := prometheus.NewRegistry()
	s := newSignatures(t, h, func(o *federation.Options) { o.Registerer = registry })
	good := request(h)
	_, _, err := s.Verify(t.Context(), came(good, federationtest.Sign(t, h.Key(), good)))
	require.NoError(t, err)
	_, _, err = s.Verify(t.Context(), came(good))
	require.Error(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	counted := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "passerelle_federation_signed_requests_total" {
				counted[metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
			}
		}
	}
	require.Equal(t, map[string]float64{
		"verified": 1, "not_signed": 1, "content": 0, "no_keys": 0, "not_allowed": 0, "other_destination": 0, "signature": 0, "unknown_key": 0,
	}, counted)
}

// FuzzSignedBody: whatever comes in the place of what was signed, it is refused
// or what was signed is read.
func FuzzSignedBody(f *testing.F) {
	key := mautrix.GenerateSigningKey()
	policy, err := federation.NewPolicy([]config.FederationRule{{Server: "friend.example", Access: "join",
		SigningKeys: []string{string(key.ID) + " " + string(key.Pub)}}})
	require.NoError(f, err)
	s, err := federation.NewSignatures(federation.Options{Policy: policy, Log: zerolog.Nop(), Config: config.Federation{Timeout: timeout}}, ownServer)
	require.NoError(f, err)
	r := federationtest.Request{Method: http.MethodPost, URI: tokenURI, Origin: "friend.example", Destination: ownServer,
		Body: `{"room_id":"😀","user_id":"@bo:friend.example"}`}
	header := federationtest.Sign(f, key, r)
	f.Add(r.Body)
	f.Add(`{"user_id":"@bo:friend.example", "room_id":"\ud83d\ude00"}`)
	f.Add(`{"user_id":"@eve:friend.example","room_id":"😀","user_id":"@bo:friend.example"}`)
	f.Add(`{"room_id":"\ud83d","x":"","user_id":"@bo:friend.example"}`)
	f.Fuzz(func(t *testing.T, body string) {
		changed := r
		changed.Body = body
		origin, content, err := s.Verify(t.Context(), came(changed, header))
		if err == nil && (origin != r.Origin || string(content) != r.Body) {
			t.Fatalf("%s is read as %s", body, content)
		}
	})
}

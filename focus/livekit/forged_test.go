package livekit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

// forger makes tokens that look like ours. Its claims are good for the door
// and, for leftBody, as a webhook's; what is wrong is what each forgery says.
type forger struct {
	t *testing.T
}

func (f forger) claims(change func(jwt.MapClaims)) jwt.MapClaims {
	sum := sha256.Sum256([]byte(leftBody))
	c := jwt.MapClaims{
		"iss": testKey, "sub": "who", "nbf": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(),
		"sha256": base64.StdEncoding.EncodeToString(sum[:]),
		"video":  map[string]any{"roomJoin": true, "room": "room"},
	}
	change(c)
	return c
}

func (f forger) by(method jwt.SigningMethod, key any) string { return f.with(method, key, nil) }

// with adds to the header.
func (f forger) with(method jwt.SigningMethod, key any, header map[string]any) string {
	f.t.Helper()
	token := jwt.NewWithClaims(method, f.claims(func(jwt.MapClaims) {}))
	for name, value := range header {
		token.Header[name] = value
	}
	signed, err := token.SignedString(key)
	require.NoError(f.t, err)
	return signed
}

// saying is properly signed and says something else.
func (f forger) saying(change func(jwt.MapClaims)) string {
	f.t.Helper()
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, f.claims(change)).SignedString([]byte(testSecret))
	require.NoError(f.t, err)
	return signed
}

// claiming has any header, and the signature that the real algorithm gives.
func (f forger) claiming(header string) string {
	f.t.Helper()
	claims, err := json.Marshal(f.claims(func(jwt.MapClaims) {}))
	require.NoError(f.t, err)
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	signature, err := jwt.SigningMethodHS256.Sign(signed, []byte(testSecret))
	require.NoError(f.t, err)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// forgeries are refused at the door and as a webhook's.
func (f forger) forgeries() map[string]string {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(f.t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f.t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(f.t, err)
	good := f.saying(func(jwt.MapClaims) {})
	parts := strings.Split(good, ".")
	none := f.by(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType)
	unsigned := func(header string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "."
	}
	secret := []byte(testSecret)
	return map[string]string{
		"alg none":                     none,
		"alg none with our signature":  none + parts[2],
		"alg None":                     unsigned(`{"alg":"None","typ":"JWT"}`),
		"alg nOnE":                     unsigned(`{"alg":"nOnE","typ":"JWT"}`),
		"alg empty":                    unsigned(`{"alg":"","typ":"JWT"}`),
		"no alg":                       unsigned(`{"typ":"JWT"}`),
		"no alg, signed":               f.claiming(`{"typ":"JWT"}`),
		"alg none, signed":             f.claiming(`{"alg":"none"}`),
		"alg hs256, signed":            f.claiming(`{"alg":"hs256"}`),
		"alg RS256, signed with HS256": f.claiming(`{"alg":"RS256"}`),
		"alg HS384":                    f.by(jwt.SigningMethodHS384, secret),
		"alg HS512":                    f.by(jwt.SigningMethodHS512, secret),
		"alg RS256":                    f.by(jwt.SigningMethodRS256, rsaKey),
		"alg PS256":                    f.by(jwt.SigningMethodPS256, rsaKey),
		"alg ES256":                    f.by(jwt.SigningMethodES256, ecKey),
		"alg EdDSA":                    f.by(jwt.SigningMethodEdDSA, crypto.Signer(edKey)),
		"an empty secret":              f.by(jwt.SigningMethodHS256, []byte{}),
		"the key for a secret":         f.by(jwt.SigningMethodHS256, []byte(testKey)),
		"another secret":               f.by(jwt.SigningMethodHS256, []byte("x"+testSecret)),
		"a key in the header": f.with(jwt.SigningMethodHS256, []byte("evil"), map[string]any{"jwk": map[string]any{
			"kty": "oct", "k": base64.RawURLEncoding.EncodeToString([]byte("evil"))}}),
		"a key at an address":   f.with(jwt.SigningMethodHS256, []byte("evil"), map[string]any{"jku": "http://127.0.0.1:1/keys", "x5u": "http://127.0.0.1:1/x"}),
		"a key that is a file":  f.with(jwt.SigningMethodHS256, []byte{}, map[string]any{"kid": "../../../../dev/null"}),
		"a key that is a query": f.with(jwt.SigningMethodHS256, []byte("x"), map[string]any{"kid": "' UNION SELECT 'x"}),
		"another issuer":        f.saying(func(c jwt.MapClaims) { c["iss"] = "APIother" }),
		"no issuer":             f.saying(func(c jwt.MapClaims) { delete(c, "iss") }),
		"two issuers":           f.saying(func(c jwt.MapClaims) { c["iss"] = []string{testKey, "APIother"} }),
		"expired":               f.saying(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-2 * time.Minute).Unix() }),
		"expiry in words":       f.saying(func(c jwt.MapClaims) { c["exp"] = "never" }),
		"not yet":               f.saying(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(5 * time.Minute).Unix() }),
		"a changed payload":     parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+testKey+`","exp":4102444800}`)) + "." + parts[2],
		"no signature":          parts[0] + "." + parts[1] + ".",
		"half a signature":      parts[0] + "." + parts[1] + "." + parts[2][:20],
		"a part too many":       good + "." + parts[2],
		"a huge header":         f.with(jwt.SigningMethodHS256, []byte("evil"), map[string]any{"x": strings.Repeat("x", 200_000)}),
		"all dots":              strings.Repeat(".", 100_000),
		"deep nesting":          base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat(`{"alg":`, 100_000))) + "." + parts[1] + "." + parts[2],
	}
}

func TestForgedTokens(t *testing.T) {
	f := forger{t}
	tokens := NewVerifier(NewTokens(testKey, testSecret))
	good := f.saying(func(jwt.MapClaims) {})
	_, err := tokens.Verify(good)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, report(t, good, leftBody), "what is below must fail for its own reasons")

	forged := f.forgeries()
	require.GreaterOrEqual(t, len(forged), 30)
	for name, token := range forged {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			got, err := tokens.Verify(token)
			require.ErrorIs(t, err, ErrToken)
			require.Equal(t, matrixrtc.Ticket{}, got)
			require.Equal(t, http.StatusUnauthorized, report(t, token, leftBody))
			require.Less(t, time.Since(began), 5*time.Second)
		})
	}
}

// What is signed for one door opens no other.
func TestTokensForSomethingElse(t *testing.T) {
	f := forger{t}
	tokens := NewTokens(testKey, testSecret)
	member, err := tokens.Sign(matrixrtc.Grant{Room: "room", Identity: "who", Publish: matrixrtc.AllSources, Lifetime: time.Hour})
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, report(t, member, leftBody), "a member's token is no webhook's")
	require.Equal(t, http.StatusUnauthorized, report(t, member, ""))

	webhook := f.saying(func(c jwt.MapClaims) { delete(c, "video"); delete(c, "sub") })
	_, err = NewVerifier(tokens).Verify(webhook)
	require.ErrorIs(t, err, ErrToken)
	for _, video := range []map[string]any{
		{"roomCreate": true}, {"roomList": true}, {"roomAdmin": true, "room": "room"}, {"roomRecord": true}, {"roomJoin": false, "room": "room"},
		{"roomJoin": true}, {"ingressAdmin": true},
	} {
		_, err = NewVerifier(tokens).Verify(f.saying(func(c jwt.MapClaims) { c["video"] = video }))
		require.ErrorIs(t, err, ErrToken, "%v", video)
	}
}

// Every bit of a report counts.
func TestAReportWithOneBitChanged(t *testing.T) {
	good := forger{t}.saying(func(jwt.MapClaims) {})
	for i := range len(leftBody) * 8 {
		body := []byte(leftBody)
		body[i/8] ^= 1 << (i % 8)
		require.Equal(t, http.StatusUnauthorized, report(t, good, string(body)), "bit %d", i)
	}
}

// report sends a report and returns the status. None that is refused is
// recorded.
func report(t *testing.T, token, body string) int {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sfu_webhook", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/webhook+json")
	r.Header.Set("Authorization", token)
	var got recorder
	w := httptest.NewRecorder()
	newTestWebhook(&got).ServeHTTP(w, r)
	require.Equal(t, w.Code == http.StatusOK, len(got.events) == 1)
	return w.Code
}

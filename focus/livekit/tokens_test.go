package livekit

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/livekit/protocol/auth"
	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

const (
	testKey    = "APItest"
	testSecret = "0123456789abcdef0123456789abcdef"
)

func testTokens(at time.Time) *Tokens {
	t := NewTokens(testKey, testSecret)
	t.now = func() time.Time { return at }
	return t
}

func sign(t *testing.T, tokens *Tokens, g matrixrtc.Grant) string {
	t.Helper()
	token, err := tokens.Sign(g)
	require.NoError(t, err)
	return token
}

func TestClaimsAreTheLeastThatIsNeeded(t *testing.T) {
	at := time.Unix(1793000000, 0)
	for _, c := range []struct {
		publish matrixrtc.Sources
		listed  []any
	}{
		{0, nil},
		{matrixrtc.AllSources, nil},
		{matrixrtc.Microphone, []any{"microphone"}},
		{matrixrtc.Microphone | matrixrtc.ScreenShare, []any{"microphone", "screen_share", "screen_share_audio"}},
	} {
		token := sign(t, testTokens(at), matrixrtc.Grant{Room: "R+/", Identity: "@a:hs:DEV", Publish: c.publish, Lifetime: time.Hour, Term: 17})
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		require.NoError(t, err)
		var got map[string]any
		require.NoError(t, json.Unmarshal(payload, &got))
		video := map[string]any{
			"roomJoin": true, "room": "R+/", "canPublish": c.publish != 0, "canPublishData": c.publish != 0,
			"canSubscribe": true, "canUpdateOwnMetadata": false, "destinationRoom": "term-17",
		}
		if c.listed != nil {
			video["canPublishSources"] = c.listed
		}
		want := map[string]any{
			"iss": testKey, "sub": "@a:hs:DEV",
			"nbf": 1793000000.0, "iat": 1793000000.0, "exp": 1793003600.0,
			"video": video,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("claims (-want +got):\n%s", diff)
		}
	}
}

// LiveKit's own verifier must agree with what we sign.
func TestLiveKitAcceptsOurTokens(t *testing.T) {
	token := sign(t, testTokens(time.Now()), matrixrtc.Grant{Room: "room", Identity: "@é~:hs:D?", Publish: matrixrtc.AllSources, Lifetime: time.Hour})
	verifier, err := auth.ParseAPIToken(token)
	require.NoError(t, err)
	require.Equal(t, testKey, verifier.APIKey())
	_, grants, err := verifier.Verify(testSecret)
	require.NoError(t, err)
	require.Equal(t, "@é~:hs:D?", grants.Identity)
	require.True(t, grants.Video.RoomJoin)
	require.False(t, grants.Video.RoomCreate)
	require.Equal(t, "room", grants.Video.Room)
}

func TestEveryPayloadCanBeReadWithAtob(t *testing.T) {
	tokens := testTokens(time.Unix(1793000000, 0))
	for _, identity := range []matrixrtc.Identity{
		"@a:hs:DEV", "~~~", "a~", "ab~", "???", ">>>", "\x7f\x7f\x7f", "éàü€😀", "\u2028\u2029", "@<script>&:hs:\"\\",
	} {
		for shift := range 3 {
			g := matrixrtc.Grant{Room: matrixrtc.SFURoom(strings.Repeat("r", shift+1)), Identity: identity, Lifetime: time.Hour}
			token := sign(t, tokens, g)
			payload := strings.Split(token, ".")[1]
			require.NotContains(t, payload, "-", "identity %q", identity)
			require.NotContains(t, payload, "_", "identity %q", identity)
			got, err := testVerify(tokens, token)
			require.NoError(t, err)
			require.Equal(t, identity, got.Identity)
		}
	}
}

// testVerify checks a token at the time at which tokens signs.
func testVerify(tokens *Tokens, token string) (matrixrtc.Ticket, error) {
	v := NewVerifier(tokens)
	v.parser = jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired(), jwt.WithTimeFunc(tokens.now))
	return v.Verify(token)
}

func TestVerifyRefuses(t *testing.T) {
	tokens := testTokens(time.Now())
	grant := matrixrtc.Grant{Room: "room", Identity: "who", Publish: matrixrtc.AllSources, Lifetime: time.Hour}
	good := sign(t, tokens, grant)
	parts := strings.Split(good, ".")
	claims := func(change func(jwt.MapClaims)) jwt.MapClaims {
		c := jwt.MapClaims{
			"iss": testKey, "sub": "who", "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			"video": map[string]any{"roomJoin": true, "room": "room"},
		}
		change(c)
		return c
	}
	signed := func(method jwt.SigningMethod, key any, c jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(method, c).SignedString(key)
		require.NoError(t, err)
		return token
	}
	hs256 := func(change func(jwt.MapClaims)) string {
		return signed(jwt.SigningMethodHS256, []byte(testSecret), claims(change))
	}
	require.NotEmpty(t, parts)
	door, err := NewDoorTokens(testKey, testSecret)
	require.NoError(t, err)
	verifier := NewVerifier(door, tokens)
	_, err = verifier.Verify(hs256(func(jwt.MapClaims) {}))
	require.NoError(t, err, "the table below must fail for its own reasons")

	for name, token := range map[string]string{
		"empty":                      "",
		"not a token":                "hello",
		"two parts":                  parts[0] + "." + parts[1],
		"four parts":                 good + ".x",
		"signature cut":              parts[0] + "." + parts[1] + ".",
		"payload changed":            parts[0] + "." + parts[1][:len(parts[1])-2] + "fQ" + "." + parts[2],
		"alg none":                   signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(func(jwt.MapClaims) {})),
		"alg HS512":                  signed(jwt.SigningMethodHS512, []byte(testSecret), claims(func(jwt.MapClaims) {})),
		"another secret":             signed(jwt.SigningMethodHS256, []byte("x"+testSecret), claims(func(jwt.MapClaims) {})),
		"another issuer":             hs256(func(c jwt.MapClaims) { c["iss"] = "APIother" }),
		"expired":                    hs256(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() }),
		"no expiry":                  hs256(func(c jwt.MapClaims) { delete(c, "exp") }),
		"not yet":                    hs256(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Minute).Unix() }),
		"no room":                    hs256(func(c jwt.MapClaims) { c["video"] = map[string]any{"roomJoin": true} }),
		"may not join":               hs256(func(c jwt.MapClaims) { c["video"] = map[string]any{"room": "room"} }),
		"administrator":              hs256(func(c jwt.MapClaims) { c["video"] = map[string]any{"roomAdmin": true, "room": "room"} }),
		"no video":                   hs256(func(c jwt.MapClaims) { delete(c, "video") }),
		"nobody":                     hs256(func(c jwt.MapClaims) { delete(c, "sub") }),
		"a door key's ID":            hs256(func(c jwt.MapClaims) { c["iss"] = door.key }),
		"no issuer":                  hs256(func(c jwt.MapClaims) { delete(c, "iss") }),
		"alg RS256":                  signed(jwt.SigningMethodRS256, rsaKey(t), claims(func(jwt.MapClaims) {})),
		"the door's key and no term": signed(jwt.SigningMethodHS256, door.secret, claims(func(c jwt.MapClaims) { c["iss"] = door.key })),
		"a term of nobody": hs256(func(c jwt.MapClaims) {
			c["video"] = map[string]any{"roomJoin": true, "room": "room", "destinationRoom": "x"}
		}),
		"a negative term": hs256(func(c jwt.MapClaims) {
			c["video"] = map[string]any{"roomJoin": true, "room": "room", "destinationRoom": "term--1"}
		}),
		"huge":              hs256(func(c jwt.MapClaims) { c["room"] = strings.Repeat("x", 1<<20); c["iss"] = "APIother" }),
		"claims not object": parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`[]`)) + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifier.Verify(token)
			require.ErrorIs(t, err, ErrToken)
			if len(token) > 5 {
				require.NotContains(t, err.Error(), token)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	// The same in each of the fuzzer's processes.
	tokens := testTokens(time.Unix(1700000000, 0))
	good, err := tokens.Sign(matrixrtc.Grant{Room: "room", Identity: "who", Lifetime: 200 * 365 * 24 * time.Hour})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(tokenHeader + ".e30.")
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		// The signature's last character has spare bits, so more than one
		// spelling of the good token is good.
		ticket, err := NewVerifier(tokens).Verify(token)
		if err == nil && !strings.HasPrefix(token, good[:len(good)-1]) {
			t.Fatalf("admitted %+v with a token that nobody signed: %q", ticket, token)
		}
	})
}

func FuzzEscapeForAtob(f *testing.F) {
	f.Add("@a:hs~?>\x7f")
	f.Add("é\u2028😀")
	f.Fuzz(func(t *testing.T, text string) {
		compact, err := json.Marshal(text)
		require.NoError(t, err)
		escaped := escapeForAtob(compact)
		require.NotContains(t, base64.RawURLEncoding.EncodeToString(escaped), "-")
		require.NotContains(t, base64.RawURLEncoding.EncodeToString(escaped), "_")
		var want, got string
		require.NoError(t, json.Unmarshal(compact, &want))
		require.NoError(t, json.Unmarshal(escaped, &got))
		require.Equal(t, want, got)
	})
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return key
}

// A token for the door is nothing to the SFU, and what the SFU is given says
// no more than it must.
func TestTheDoorsKeyIsNotTheSFUs(t *testing.T) {
	door, err := NewDoorTokens(testKey, testSecret)
	require.NoError(t, err)
	own := NewTokens(testKey, testSecret)
	grant := matrixrtc.Grant{Room: "room", Identity: "who", Publish: matrixrtc.AllSources, Lifetime: time.Hour, Term: 1793000000123}
	token := sign(t, door, grant)
	parsed, err := auth.ParseAPIToken(token)
	require.NoError(t, err)
	require.NotEqual(t, testKey, parsed.APIKey())
	_, _, err = parsed.Verify(testSecret)
	require.Error(t, err)

	again, err := NewDoorTokens(testKey, testSecret)
	require.NoError(t, err)
	ticket, err := NewVerifier(again, own).Verify(token)
	require.NoError(t, err, "the same key after a restart")
	require.Equal(t, grant.Term, ticket.Term)
	_, err = NewVerifier(own).Verify(token)
	require.ErrorIs(t, err, ErrToken)

	resigned, err := own.Resign(ticket)
	require.NoError(t, err)
	parsed, err = auth.ParseAPIToken(resigned)
	require.NoError(t, err)
	claims, grants, err := parsed.Verify(testSecret)
	require.NoError(t, err)
	require.Equal(t, ticket.Expires.Unix(), claims.ExpiresAt.Unix(), "it is good for as long as the one before")

	// What LiveKit makes of it for who is connected (RoomManager.refreshToken).
	refreshed, err := auth.NewAccessToken(testKey, testSecret).SetIdentity(grants.Identity).SetName(grants.Name).
		SetKind(grants.GetParticipantKind()).SetValidFor(10 * time.Minute).SetMetadata(grants.Metadata).
		SetAttributes(grants.Attributes).SetVideoGrant(grants.Video).SetRoomPreset(grants.RoomPreset).ToJWT()
	require.NoError(t, err)
	back, err := NewVerifier(door, own).Verify(refreshed)
	require.NoError(t, err)
	require.Equal(t, grant.Term, back.Term, "LiveKit carries the term")
	require.Zero(t, back.Publish, "what a token lets send is decided anew, never read")

	grants.Video.DestinationRoom, grants.Video.RoomAdmin, grants.Video.Hidden = "", true, true
	more, err := auth.NewAccessToken(testKey, testSecret).SetIdentity("who").SetVideoGrant(grants.Video).SetValidFor(time.Minute).ToJWT()
	require.NoError(t, err)
	back, err = NewVerifier(door, own).Verify(more)
	require.NoError(t, err)
	require.EqualValues(t, matrixrtc.UnknownTerm, back.Term)
	resigned, err = own.Resign(back)
	require.NoError(t, err)
	parsed, err = auth.ParseAPIToken(resigned)
	require.NoError(t, err)
	_, grants, err = parsed.Verify(testSecret)
	require.NoError(t, err)
	require.False(t, grants.Video.RoomAdmin || grants.Video.Hidden, "rights are not passed on")
}

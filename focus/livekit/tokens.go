package livekit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf16"

	"github.com/golang-jwt/jwt/v5"
	"github.com/livekit/protocol/auth"

	"passerelle/focus/matrixrtc"
)

// ErrToken is returned for a token that is malformed, not signed with our
// key, expired, or allows no room. It never holds any part of the token.
var ErrToken = errors.New("not a valid token of this service")

// clockSkew is how far the clocks of this machine and of an SFU on another
// may be apart. LiveKit itself allows a minute.
const clockSkew = 10 * time.Second

// Tokens signs and checks the tokens of one LiveKit API key.
type Tokens struct {
	key    string
	secret []byte
	parser *jwt.Parser
	now    func() time.Time
}

// NewTokens returns the Tokens of an API key and its secret.
func NewTokens(key, secret string) *Tokens {
	return &Tokens{
		key:    key,
		secret: []byte(secret),
		now:    time.Now,
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
			jwt.WithIssuer(key),
			jwt.WithExpirationRequired(),
			jwt.WithLeeway(clockSkew),
		),
	}
}

// participantClaims are the claims of a participant's token and no more: no
// name, metadata or attribute, since every participant could read those. All
// permissions are explicit, so that no default of LiveKit's decides.
type participantClaims struct {
	Issuer    string     `json:"iss"`
	Subject   string     `json:"sub"`
	NotBefore int64      `json:"nbf"`
	IssuedAt  int64      `json:"iat"`
	Expires   int64      `json:"exp"`
	Video     videoGrant `json:"video"`
}

// videoGrant is the part of LiveKit's grants that a member of a call may hold.
// roomCreate is absent on purpose: its holder can delete any room.
type videoGrant struct {
	RoomJoin             bool   `json:"roomJoin"`
	Room                 string `json:"room"`
	CanPublish           bool   `json:"canPublish"`
	CanPublishData       bool   `json:"canPublishData"`
	CanSubscribe         bool   `json:"canSubscribe"`
	CanUpdateOwnMetadata bool   `json:"canUpdateOwnMetadata"`
}

// tokenHeader is the base64url of {"alg":"HS256","typ":"JWT"}.
const tokenHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// Sign returns the JWT (RFC 7519, HS256) that lets the grant's identity into
// the grant's room, from now on for the grant's lifetime.
func (t *Tokens) Sign(g matrixrtc.Grant) (string, error) {
	now := t.now()
	payload, err := json.Marshal(participantClaims{
		Issuer:    t.key,
		Subject:   string(g.Identity),
		NotBefore: now.Unix(),
		IssuedAt:  now.Unix(),
		Expires:   now.Add(g.Lifetime).Unix(),
		Video: videoGrant{
			RoomJoin: true, Room: string(g.Room),
			CanPublish: g.Publish, CanPublishData: g.Publish, CanSubscribe: true,
		},
	})
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	const room = 1024 // for nearly every token
	token := append(make([]byte, 0, room), tokenHeader+"."...)
	token = base64.RawURLEncoding.AppendEncode(token, escapeForAtob(payload))
	mac := hmac.New(sha256.New, t.secret)
	_, _ = mac.Write(token)
	token = append(token, '.')
	return string(base64.RawURLEncoding.AppendEncode(token, mac.Sum(nil))), nil
}

// escapeForAtob rewrites JSON so that its base64url form holds neither '-' nor
// '_'. Element Call reads the claims with atob, which knows only the standard
// alphabet. Of ASCII only '>', '?', '~' and DEL can end in those two sextets,
// and in compact JSON they and everything beyond ASCII stand in strings alone,
// where \u escapes mean the same.
func escapeForAtob(compact []byte) []byte {
	escaped := make([]byte, 0, len(compact)+16)
	for _, r := range string(compact) {
		switch {
		case r < 0x7f && r != '>' && r != '?' && r != '~':
			escaped = append(escaped, byte(r))
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			escaped = appendEscape(appendEscape(escaped, high), low)
		default:
			escaped = appendEscape(escaped, r)
		}
	}
	return escaped
}

func appendEscape(b []byte, unit rune) []byte {
	const width = 4
	digits := strconv.FormatInt(int64(unit), 16)
	b = append(b, `\u`...)
	for range width - len(digits) {
		b = append(b, '0')
	}
	return append(b, digits...)
}

// Admission is what a checked token says.
type Admission struct {
	Room     matrixrtc.SFURoom
	Identity matrixrtc.Identity
	// NotBefore is when the token was made, by us or, refreshed, by the SFU.
	NotBefore time.Time
	Expires   time.Time
}

type readClaims struct {
	jwt.RegisteredClaims
	Video *auth.VideoGrant `json:"video"`
}

// Verify checks the signature, issuer and times of a participant's token.
// Tokens that LiveKit refreshed are signed with the same key and pass too.
// Every refusal is [ErrToken] with a reason that is safe to log.
func (t *Tokens) Verify(token string) (Admission, error) {
	var claims readClaims
	_, err := t.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return t.secret, nil })
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return Admission{}, fmt.Errorf("%w: expired", ErrToken)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return Admission{}, fmt.Errorf("%w: signature or algorithm", ErrToken)
	case err != nil:
		return Admission{}, fmt.Errorf("%w: malformed or wrong claims", ErrToken)
	case claims.Video == nil || !claims.Video.RoomJoin || claims.Video.Room == "" || claims.Subject == "":
		return Admission{}, fmt.Errorf("%w: names no room or nobody", ErrToken)
	}
	admission := Admission{
		Room:     matrixrtc.SFURoom(claims.Video.Room),
		Identity: matrixrtc.Identity(claims.Subject),
		Expires:  claims.ExpiresAt.Time,
	}
	if claims.NotBefore != nil {
		admission.NotBefore = claims.NotBefore.Time
	}
	return admission, nil
}

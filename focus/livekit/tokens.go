package livekit

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf16"

	"passerelle/focus/matrixrtc"
)

// ErrToken is returned for a token that is malformed, not signed with one of
// our keys, expired, or allows no room. It never holds any part of the token.
var ErrToken = errors.New("not a valid token of this service")

// clockSkew is how far the clocks of this machine and of an SFU on another
// may be apart. LiveKit itself allows a minute.
const clockSkew = 10 * time.Second

// Tokens signs tokens with one key.
type Tokens struct {
	key    string
	secret []byte
	now    func() time.Time
}

// NewTokens returns the Tokens of a LiveKit API key and its secret. The SFU
// accepts what they sign.
func NewTokens(key, secret string) *Tokens {
	return &Tokens{key: key, secret: []byte(secret), now: time.Now}
}

// doorPrefix begins the IDs of the keys that only the door knows.
const doorPrefix = "door-"

// NewDoorTokens returns Tokens of a key that is derived from an SFU's (HKDF,
// RFC 5869) and that the SFU does not know: who holds such a token gets nothing
// from the SFU but through the door. The same SFU key gives the same door key,
// so that tokens outlive a restart.
func NewDoorTokens(key, secret string) (*Tokens, error) {
	derived, err := hkdf.Key(sha256.New, []byte(secret), nil, "passerelle door tokens", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the door's key: %w", err)
	}
	return &Tokens{key: doorPrefix + key, secret: derived, now: time.Now}, nil
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
	RoomJoin       bool   `json:"roomJoin"`
	Room           string `json:"room"`
	CanPublish     bool   `json:"canPublish"`
	CanPublishData bool   `json:"canPublishData"`
	// Of no sources LiveKit makes all: who may send nothing has no canPublish, and
	// who may send everything has no list.
	CanPublishSources    []string `json:"canPublishSources,omitempty"`
	CanSubscribe         bool     `json:"canSubscribe"`
	CanUpdateOwnMetadata bool     `json:"canUpdateOwnMetadata"`
	// Term travels in a claim that allows nothing to who is no administrator of
	// the room, and that LiveKit copies into the tokens which it makes for those
	// who are connected. Of claims that it does not know it copies none.
	Term string `json:"destinationRoom,omitempty"`
}

// termPrefix begins the claim that carries a grant's term, in decimal.
const termPrefix = "term-"

// tokenHeader is the base64url of {"alg":"HS256","typ":"JWT"}.
const tokenHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// Sign returns the JWT (RFC 7519, HS256) that lets the grant's identity into
// the grant's room, from now on for the grant's lifetime.
func (t *Tokens) Sign(g matrixrtc.Grant) (string, error) {
	now := t.now()
	return t.sign(matrixrtc.Ticket{
		Room: g.Room, Identity: g.Identity, Publish: g.Publish, Term: g.Term,
		UpdateOwnMetadata: g.UpdateOwnMetadata,
		MadeAt:            now, Expires: now.Add(g.Lifetime),
	})
}

// Resign returns a token with what the ticket says, from now on, and no more
// than that, whatever else stood in the token that the ticket was read from.
func (t *Tokens) Resign(ticket matrixrtc.Ticket) (string, error) {
	ticket.MadeAt = t.now()
	return t.sign(ticket)
}

func (t *Tokens) sign(ticket matrixrtc.Ticket) (string, error) {
	video := videoGrant{
		RoomJoin: true, Room: string(ticket.Room),
		CanPublish: ticket.Publish != 0, CanPublishData: ticket.Publish != 0, CanSubscribe: true,
		CanPublishSources:    sourceNames(ticket.Publish),
		CanUpdateOwnMetadata: ticket.UpdateOwnMetadata,
	}
	if ticket.Term != matrixrtc.UnknownTerm {
		video.Term = termPrefix + strconv.FormatInt(ticket.Term, 10)
	}
	payload, err := json.Marshal(participantClaims{
		Issuer:    t.key,
		Subject:   string(ticket.Identity),
		NotBefore: ticket.MadeAt.Unix(),
		IssuedAt:  ticket.MadeAt.Unix(),
		Expires:   ticket.Expires.Unix(),
		Video:     video,
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

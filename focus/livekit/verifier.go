package livekit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/livekit/protocol/auth"

	"passerelle/focus/matrixrtc"
)

// Verifier checks the tokens of several keys: the door's, and those of the
// SFUs, which make tokens for who is connected to them.
type Verifier struct {
	secrets map[string][]byte
	parser  *jwt.Parser
}

// NewVerifier returns a Verifier of what these sign.
func NewVerifier(signers ...*Tokens) *Verifier {
	v := &Verifier{secrets: map[string][]byte{}, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(clockSkew),
	)}
	for _, signer := range signers {
		v.secrets[signer.key] = signer.secret
	}
	return v
}

type readClaims struct {
	jwt.RegisteredClaims
	Video *auth.VideoGrant `json:"video"`
}

// errIssuer is not for others: they get ErrToken.
var errIssuer = errors.New("unknown issuer")

// Verify checks the signature, issuer and times of a participant's token.
// Every refusal is [ErrToken] with a reason that is safe to log.
func (v *Verifier) Verify(token string) (matrixrtc.Ticket, error) {
	var claims readClaims
	_, err := v.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) {
		secret, known := v.secrets[claims.Issuer]
		if !known {
			return nil, errIssuer
		}
		return secret, nil
	})
	switch {
	case errors.Is(err, errIssuer):
		return matrixrtc.Ticket{}, fmt.Errorf("%w: %w", ErrToken, errIssuer)
	case errors.Is(err, jwt.ErrTokenExpired):
		return matrixrtc.Ticket{}, fmt.Errorf("%w: expired", ErrToken)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return matrixrtc.Ticket{}, fmt.Errorf("%w: signature or algorithm", ErrToken)
	case err != nil:
		return matrixrtc.Ticket{}, fmt.Errorf("%w: malformed or wrong claims", ErrToken)
	case claims.Video == nil || !claims.Video.RoomJoin || claims.Video.Room == "" || claims.Subject == "":
		return matrixrtc.Ticket{}, fmt.Errorf("%w: names no room or nobody", ErrToken)
	}
	term, err := readTerm(claims.Video.DestinationRoom)
	switch {
	case err != nil:
		return matrixrtc.Ticket{}, err
	case term == matrixrtc.UnknownTerm && strings.HasPrefix(claims.Issuer, doorPrefix):
		return matrixrtc.Ticket{}, fmt.Errorf("%w: names no term", ErrToken)
	}
	ticket := matrixrtc.Ticket{
		Room:     matrixrtc.SFURoom(claims.Video.Room),
		Identity: matrixrtc.Identity(claims.Subject),
		Term:     term,
		Expires:  claims.ExpiresAt.Time,
	}
	if claims.NotBefore != nil {
		ticket.MadeAt = claims.NotBefore.Time
	}
	return ticket, nil
}

func readTerm(claim string) (int64, error) {
	if claim == "" {
		return matrixrtc.UnknownTerm, nil
	}
	digits, ok := strings.CutPrefix(claim, termPrefix)
	term, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || term < 0 {
		return 0, fmt.Errorf("%w: no such term", ErrToken)
	}
	return term, nil
}

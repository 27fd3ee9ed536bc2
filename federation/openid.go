package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

var (
	// ErrNotAllowed is returned for a server that the policy does not let
	// join. Nothing was asked of anybody.
	ErrNotAllowed = errors.New("the policy does not allow this server")
	// ErrRejected is returned when the homeserver says that the token is not
	// good, or when no homeserver can have made it.
	ErrRejected = errors.New("the homeserver rejected the token")
	// ErrForeignSubject is returned when a homeserver speaks for a user who is
	// not its own.
	ErrForeignSubject = errors.New("the homeserver named a user that is not its own")
	// ErrUnreachable is returned when no usable answer could be had.
	ErrUnreachable = errors.New("the homeserver gave no usable answer")
)

const (
	// userinfoPath is the one route of the federation API that proves who
	// holds an OpenID token (server-server API, "OpenID"). It needs no
	// signature.
	userinfoPath = "/_matrix/federation/v1/openid/userinfo"
	// maxToken bounds a token; those of homeservers have some tens of letters.
	maxToken = 2048
)

// OpenID proves who somebody is, by asking their homeserver.
type OpenID struct {
	policy  *Policy
	asker   *asker
	metrics metrics
	log     zerolog.Logger
}

// Options are what an [OpenID], [ClientAPIs] and [Signatures] need: how other homeservers are
// reached, and what is believed of them.
type Options struct {
	// Config says how homeservers are reached. Its Rules are not read: Policy
	// decides.
	Config config.Federation
	// Policy names the servers that may be asked.
	Policy *Policy
	Log    zerolog.Logger
	// Registerer takes the metrics; nil leaves them unregistered.
	Registerer prometheus.Registerer
	// SkipVerifyTLS takes any certificate for that of a homeserver. Whoever
	// stands in between can then pose as any user.
	SkipVerifyTLS bool
	// Insist asks servers again however often they failed before.
	Insist bool
	// PlainClientAPIs takes client-server APIs without TLS, too, where a server
	// says that it has its own there.
	PlainClientAPIs bool
	// DNS resolves names; nil asks the system's name servers.
	DNS *net.Resolver

	// through changes the port of an address that is dialled, before the
	// address filter sees it. Only tests set it, which cannot listen at 443.
	through func(address string) string
	// dialled is told each address, host:port, that is connected to. Only tests
	// set it.
	dialled func(address string)
}

// NewOpenID returns an OpenID. Close lets go of its connections.
func NewOpenID(o Options) (*OpenID, error) {
	asker, err := newAsker(o)
	if err != nil {
		return nil, err
	}
	return &OpenID{
		policy:  o.Policy,
		asker:   asker,
		metrics: newMetrics(o.Registerer, asker.peers),
		log:     o.Log,
	}, nil
}

// Close lets go of the connections that no question uses.
func (o *OpenID) Close() { o.asker.client.close() }

// Verify asks the homeserver that the token names whose token it is, once and
// without a retry, and returns the user. It takes at most the configured
// timeout. Errors are [ErrNotAllowed], [ErrRejected], [ErrForeignSubject] or
// [ErrUnreachable], with a reason in which the token does not stand.
func (o *OpenID) Verify(ctx context.Context, token matrixrtc.OpenIDToken) (id.UserID, error) {
	started := time.Now()
	user, err := o.verify(ctx, token)
	o.metrics.observe(err, time.Since(started))
	if errors.Is(err, ErrForeignSubject) {
		// The operator should know which server it was.
		o.log.Warn().Str("server_name", token.MatrixServerName).Msg("Homeserver named a user that is not its own")
	}
	return user, err
}

func (o *OpenID) verify(ctx context.Context, token matrixrtc.OpenIDToken) (id.UserID, error) {
	server := token.MatrixServerName
	if !o.policy.Access(server).Join {
		return "", ErrNotAllowed
	}
	// Some homeservers fail on odd tokens, and failures count against them.
	if !validToken(token.AccessToken) {
		return "", ErrRejected
	}
	status, body, err := o.asker.ask(ctx, strings.ToLower(server), userinfoPath, url.Values{"access_token": {token.AccessToken}})
	switch {
	case errors.Is(err, ErrNotAllowed):
		return "", err
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "", ErrRejected
	case status != http.StatusOK:
		return "", fmt.Errorf("%w: status %d", ErrUnreachable, status)
	}
	return subject(body, server)
}

// validToken tells whether a token has the form of an access token (RFC 6749,
// appendix A.12): visible characters of ASCII.
func validToken(token string) bool {
	return token != "" && len(token) <= maxToken &&
		!strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}

// subject reads the user from a userinfo answer and checks that it belongs to
// the server that was asked: no other server may speak for its users.
func subject(body []byte, server string) (id.UserID, error) {
	var info struct {
		Subject id.UserID `json:"sub"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return "", fmt.Errorf("%w: not the JSON expected", ErrUnreachable)
	}
	// Everything after the first colon is the server, port included. Parts are
	// compared whole: to Matrix, IDs that differ in case are two.
	name, hasSigil := strings.CutPrefix(string(info.Subject), "@")
	localpart, home, hasServer := strings.Cut(name, ":")
	switch {
	case !hasSigil || !hasServer || localpart == "" || len(info.Subject) > id.UserIDMaxLength,
		strings.ContainsFunc(localpart, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }):
		return "", fmt.Errorf("%w: it names no user", ErrUnreachable)
	case home != server && strings.EqualFold(home, server):
		// The doing of who asks, not of the server.
		return "", fmt.Errorf("%w: the server spells its name otherwise", ErrRejected)
	case home != server:
		return "", ErrForeignSubject
	}
	return info.Subject, nil
}

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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

var (
	// ErrNotAllowed is returned for a server that the policy does not let
	// join. Nothing was asked of it.
	ErrNotAllowed = errors.New("the policy does not allow this server")
	// ErrRejected is returned when the homeserver says that the token is not
	// good.
	ErrRejected = errors.New("the homeserver rejected the token")
	// ErrForeignSubject is returned when a homeserver speaks for a user who is
	// not its own.
	ErrForeignSubject = errors.New("the homeserver named a user that is not its own")
	// ErrUnreachable is returned when no usable answer could be had.
	ErrUnreachable = errors.New("the homeserver gave no usable answer")
)

// userinfoPath is the one route of the federation API that proves who holds an
// OpenID token (server-server API, "OpenID"). It needs no signature.
const userinfoPath = "/_matrix/federation/v1/openid/userinfo"

// OpenID proves who somebody is, by asking their homeserver.
type OpenID struct {
	policy  *Policy
	client  *client
	peers   *peers
	metrics metrics
}

// OpenIDOptions are what an OpenID needs.
type OpenIDOptions struct {
	Config     config.Federation
	Policy     *Policy
	Log        zerolog.Logger
	Registerer prometheus.Registerer
	// DNS resolves names; nil is the system's resolver.
	DNS *net.Resolver
}

// NewOpenID returns an OpenID. Close lets go of its connections.
func NewOpenID(o OpenIDOptions) (*OpenID, error) {
	dns := o.DNS
	if dns == nil {
		dns = net.DefaultResolver
	}
	client, err := newClient(o.Config, dns)
	if err != nil {
		return nil, err
	}
	peers := newPeers(time.Now)
	return &OpenID{policy: o.Policy, client: client, peers: peers, metrics: newMetrics(o.Registerer, peers)}, nil
}

// Close lets go of idle connections.
func (o *OpenID) Close() { o.client.close() }

// Verify asks the homeserver that the token names whose token it is, once and
// without a retry, and returns the user. The errors are [ErrNotAllowed],
// [ErrRejected], [ErrForeignSubject] and [ErrUnreachable], with a reason that
// does not hold the token.
func (o *OpenID) Verify(ctx context.Context, token matrixrtc.OpenIDToken) (id.UserID, error) {
	started := time.Now()
	user, err := o.verify(ctx, token)
	o.metrics.verified(err, time.Since(started))
	return user, err
}

func (o *OpenID) verify(ctx context.Context, token matrixrtc.OpenIDToken) (id.UserID, error) {
	server := token.MatrixServerName
	if !o.policy.Access(server).Join {
		return "", ErrNotAllowed
	}
	ctx, cancel := context.WithTimeout(ctx, o.client.timeout)
	defer cancel()
	leave, err := o.peers.enter(ctx, server)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	status, body, err := o.client.get(ctx, server, userinfoPath, url.Values{"access_token": {token.AccessToken}})
	// A client that went away says nothing about the server.
	answered := err == nil && status < 500 || errors.Is(ctx.Err(), context.Canceled)
	leave(answered)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "", ErrRejected
	case status != http.StatusOK:
		return "", fmt.Errorf("%w: status %d", ErrUnreachable, status)
	}
	return subject(body, server)
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
	// Everything after the first colon is the server, port included.
	localpart, home, ok := strings.Cut(strings.TrimPrefix(string(info.Subject), "@"), ":")
	if !ok || !strings.HasPrefix(string(info.Subject), "@") || localpart == "" || len(info.Subject) > id.UserIDMaxLength {
		return "", fmt.Errorf("%w: no user in it", ErrUnreachable)
	}
	if strings.ContainsFunc(string(info.Subject), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("%w: no user in it", ErrUnreachable)
	}
	if home != server {
		return "", ErrForeignSubject
	}
	return info.Subject, nil
}

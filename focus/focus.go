// Package focus is what MatrixRTC clients call the focus: it authorises the
// users who want to join a call, allocates the SFU session for it, keeps the
// rows that say who was given what, and records what the SFU reports.
//
// It never speaks to a homeserver or an SFU itself; it does so through the
// small interfaces below, which app fills in. A [Service] is safe for
// concurrent use; only its Run starts work that outlives a request.
package focus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/singleflight"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// Verifier proves who somebody is. federation.OpenID is one.
type Verifier interface {
	// Verify asks the homeserver that the token names whose token it is. The
	// answer belongs to that homeserver, or is an error.
	Verify(ctx context.Context, token matrixrtc.OpenIDToken) (id.UserID, error)
}

// Policy says what the users of a server may do. It is pure: no I/O.
// federation.Policy is one.
type Policy interface {
	Access(serverName string) matrixrtc.Access
}

// SFU makes rooms. livekit.Rooms is one.
type SFU interface {
	// EnsureRoom makes the room, or leaves the one that exists as it is.
	EnsureRoom(ctx context.Context, room matrixrtc.SFURoom, o matrixrtc.RoomOptions) error
}

// Tokens signs what the SFU and the door accept. livekit.Tokens is one.
type Tokens interface {
	Sign(g matrixrtc.Grant) (string, error)
}

// Limits bounds how often tokens are asked for. Each method counts a request
// and returns zero, or how long to wait. federation.Limits is one.
type Limits interface {
	Address(address string) time.Duration
	Server(name string) time.Duration
	User(user id.UserID) time.Duration
}

// Observer is told what the SFU reported, once that is recorded.
type Observer interface {
	SFUEvent(ctx context.Context, e matrixrtc.SFUEvent)
}

// Options are what a Service needs; all fields are required but Leaves and
// Observers.
type Options struct {
	Config   config.Focus
	Store    *Store
	Verifier Verifier
	Policy   Policy
	SFU      SFU
	Tokens   Tokens
	Limits   Limits
	// Leaves takes over delayed leaves; nil where nobody does.
	Leaves Leaves
	// Observers are told of each event in this order.
	Observers []Observer
	// PublicURL is the one address that clients know, http or https.
	PublicURL  *url.URL
	Log        zerolog.Logger
	Registerer prometheus.Registerer
}

// Service answers token requests and keeps the record of calls.
type Service struct {
	store    *Store
	verifier Verifier
	policy   Policy
	sfu      SFU
	tokens   Tokens
	limits   Limits
	leaves   Leaves
	watching []Observer
	sfuURL   string
	config   atomic.Pointer[config.Focus]
	ensuring singleflight.Group
	log      zerolog.Logger
	metrics  metrics
	now      func() time.Time
}

// New returns a Service. It starts nothing; see [Service.Run].
func New(o Options) (*Service, error) {
	sfuURL := *o.PublicURL
	switch sfuURL.Scheme {
	case "http":
		sfuURL.Scheme = "ws"
	case "https":
		sfuURL.Scheme = "wss"
	default:
		return nil, fmt.Errorf("public address %q: scheme must be http or https", o.PublicURL)
	}
	s := &Service{
		store:    o.Store,
		verifier: o.Verifier,
		policy:   o.Policy,
		sfu:      o.SFU,
		tokens:   o.Tokens,
		limits:   o.Limits,
		leaves:   o.Leaves,
		watching: o.Observers,
		sfuURL:   sfuURL.String(),
		log:      o.Log,
		metrics:  newMetrics(o.Registerer),
		now:      time.Now,
	}
	s.Reconfigure(o.Config)
	return s, nil
}

// Reconfigure makes later requests follow another configuration.
func (s *Service) Reconfigure(c config.Focus) { s.config.Store(&c) }

// ErrNotAdmitted is returned by [Service.Admit] for a token without a living
// grant.
var ErrNotAdmitted = errors.New("no living grant")

// Admit decides whether a participant may be connected to the SFU room now,
// and has the room made where the SFU has lost it: after its restart, or after
// everybody lost the connection for longer than the departure timeout.
// issued is when the presented token was made.
func (s *Service) Admit(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity, issued time.Time) error {
	standing, err := s.store.Standing(ctx, room, who)
	switch {
	case err != nil:
		return err
	case !standing.Granted:
		return fmt.Errorf("%w: none was given", ErrNotAdmitted)
	case standing.Revoked || issued.Before(standing.RevokedAt):
		return fmt.Errorf("%w: it was revoked", ErrNotAdmitted)
	case !standing.RoomOpen && !standing.MayCreate:
		// The SFU answers that there is no such room.
		return nil
	}
	if err := s.ensureRoom(ctx, room); err != nil {
		return err
	}
	if standing.RoomOpen {
		return nil
	}
	return s.store.RoomEnsured(ctx, room, s.now())
}

// ensureRoom has the SFU make the room. Equal requests at one time share one
// call.
func (s *Service) ensureRoom(ctx context.Context, room matrixrtc.SFURoom) error {
	c := s.config.Load()
	// A caller that gives up must not fail those who share its call; the SFU
	// client has a deadline of its own.
	shared := context.WithoutCancel(ctx)
	done := s.ensuring.DoChan(string(room), func() (any, error) {
		return nil, s.sfu.EnsureRoom(shared, room, matrixrtc.RoomOptions{
			EmptyTimeout:     c.EmptyTimeout,
			DepartureTimeout: c.DepartureTimeout,
			MaxParticipants:  c.MaxParticipants,
		})
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("create SFU room: %w", ctx.Err())
	}
}

package focus

import (
	"context"
	"fmt"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// errUnauthorized says the same whatever was wrong with the proof of identity:
// which part it was is nothing a stranger should learn.
var errUnauthorized = mautrix.RespError{
	ErrCode: "M_UNAUTHORIZED", StatusCode: http.StatusUnauthorized,
	Err: "the OpenID token could not be verified",
}

// authorise is the one way to a token, in the order of the design: the policy
// and the limits before anything goes out, then who it is, then whether they
// are in the room, then what they may do, the SFU room, the grant row, and the
// token last.
func (s *Service) authorise(ctx context.Context, r *tokenRequest) (string, error) {
	access := s.policy.Access(r.server())
	if !access.Join {
		return "", mautrix.MForbidden.WithMessage("users of this server may not join calls here")
	}
	// Our own users may learn at once that they ask for the wrong SFU; others
	// once it is known that they may ask for this one.
	if r.route == routeProxied && !s.isOurs(r.sfuURL) {
		return "", errOtherSFU
	}
	if err := limited(s.limits.Server(r.server())); err != nil {
		return "", err
	}
	user, err := s.identify(ctx, r)
	if err != nil {
		return "", err
	}
	if err := limited(s.limits.User(user)); err != nil {
		return "", err
	}
	proof := unverified
	if s.required() {
		proof = verified
		joined, err := s.joined(ctx, r.slot.RoomID, user)
		switch {
		case err != nil:
			return s.again(ctx, r, user, access, err)
		case !joined:
			return "", errNotJoined
		}
	} else {
		s.metrics.membership.WithLabelValues(unverified).Inc()
	}
	if r.route == routeFederated && !s.isOurs(r.sfuURL) {
		return "", errOtherSFU
	}
	return s.grant(ctx, r, user, access, proof)
}

// identify proves who asks.
func (s *Service) identify(ctx context.Context, r *tokenRequest) (id.UserID, error) {
	if r.vouched != "" {
		return r.vouched, nil
	}
	user, err := s.verifier.Verify(ctx, r.openID)
	if err != nil {
		s.log.Debug().Err(err).Msg("OpenID token not verified")
		return "", fmt.Errorf("%w (%w)", errUnauthorized, err)
	}
	if r.claimed != "" && r.claimed != user {
		return "", errUnauthorized
	}
	return user, nil
}

// grant has the SFU room made for those who may start the call, records what
// the user is given, and signs the token for it.
func (s *Service) grant(ctx context.Context, r *tokenRequest, user id.UserID, access matrixrtc.Access, proof string) (string, error) {
	c := s.config.Load()
	grant := matrixrtc.Grant{
		Room:     r.slot.SFURoom(),
		Identity: r.identity(user),
		Publish:  access.Publish,
		Lifetime: c.TokenLifetime,
	}
	sfu, err := s.place(ctx, grant.Room)
	if err != nil {
		return "", err
	}
	if access.Create {
		if err := s.ensureRoom(ctx, sfu, grant.Room); err != nil {
			return "", err
		}
	}
	now := s.now()
	grant.Term, err = s.store.PutGrant(ctx, GrantRow{
		Grant:      grant,
		SFU:        sfu,
		Slot:       r.slot,
		Member:     matrixrtc.Member{UserID: user, DeviceID: r.deviceID, ID: r.memberID},
		ServerName: r.server(),
		Route:      string(r.route),
		Membership: proof,
		MayCreate:  access.Create,
		Ensured:    access.Create,
		IssuedAt:   now,
		ExpiresAt:  now.Add(c.TokenLifetime),
	})
	if err != nil {
		return "", err
	}
	token, err := s.tokens.Sign(grant)
	if err != nil {
		return "", err
	}
	return token, nil
}

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

// authorise is the one way to a token, or to have a leave taken over, in the order of the design: the policy
// and the limits before anything goes out, then who it is, then what they may do, the SFU
// room, the grant row, the leave, and the token last.
func (s *Service) authorise(ctx context.Context, r *tokenRequest) (string, error) {
	if r.delay.asked() && !s.delegates() {
		return "", mautrix.MBadJSON.WithMessage("delayed leaves are not taken over here; ask again without delay_id and delay_timeout")
	}
	access := s.policy.Access(r.openID.MatrixServerName)
	if !access.Join {
		return "", mautrix.MForbidden.WithMessage("users of this server may not join calls here")
	}
	user, err := s.identify(ctx, r)
	if err != nil {
		return "", err
	}
	if err := s.mayDelegate(ctx, r, access); err != nil {
		return "", err
	}
	if r.route == routeDelegate {
		return "", s.delegate(ctx, r, user)
	}
	return s.grant(ctx, r, user, access)
}

// identify proves who asks, within the limits of their server and of
// themselves.
func (s *Service) identify(ctx context.Context, r *tokenRequest) (id.UserID, error) {
	if err := limited(s.limits.Server(r.openID.MatrixServerName)); err != nil {
		return "", err
	}
	user, err := s.verifier.Verify(ctx, r.openID)
	if err != nil {
		s.log.Debug().Err(err).Msg("OpenID token not verified")
		return "", fmt.Errorf("%w (%w)", errUnauthorized, err)
	}
	if r.claimed != "" && r.claimed != user {
		return "", errUnauthorized
	}
	return user, limited(s.limits.User(user))
}

// grant has the SFU room made for those who may start the call, records what
// the user is given, and signs the token for it.
func (s *Service) grant(ctx context.Context, r *tokenRequest, user id.UserID, access matrixrtc.Access) (string, error) {
	c := s.config.Load()
	grant := matrixrtc.Grant{
		Room:     r.slot.SFURoom(),
		Identity: r.identity(user),
		Publish:  access.Publish,
		Lifetime: c.TokenLifetime,
	}
	if access.Create {
		if err := s.ensureRoom(ctx, grant.Room); err != nil {
			return "", err
		}
	}
	now := s.now()
	err := s.store.PutGrant(ctx, GrantRow{
		Grant:      grant,
		Slot:       r.slot,
		Member:     matrixrtc.Member{UserID: user, DeviceID: r.deviceID, ID: r.memberID},
		ServerName: r.openID.MatrixServerName,
		Route:      string(r.route),
		MayCreate:  access.Create,
		Ensured:    access.Create,
		IssuedAt:   now,
		ExpiresAt:  now.Add(c.TokenLifetime),
	})
	if err != nil {
		return "", err
	}
	if r.delay.asked() {
		if err := s.delegate(ctx, r, user); err != nil {
			return "", err
		}
	}
	token, err := s.tokens.Sign(grant)
	if err != nil {
		return "", err
	}
	return token, nil
}

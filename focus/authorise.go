package focus

import (
	"context"
	"fmt"
	"net/http"
	"strings"

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
// and the limits before anything goes out, then who it is and whether the proof
// was made for this, then what they may do, the SFU room, the grant row, and
// the token last.
func (s *Service) authorise(ctx context.Context, r *tokenRequest) (string, error) {
	access := s.policy.Access(r.openID.MatrixServerName)
	if !access.Join {
		return "", mautrix.MForbidden.WithMessage("users of this server may not join calls here")
	}
	if err := limited(s.limits.Server(r.openID.MatrixServerName)); err != nil {
		return "", err
	}
	server := strings.ToLower(r.openID.MatrixServerName)
	if !s.gate.enter(server) {
		return "", limitError{busyWait}
	}
	defer s.gate.leave(server)
	user, err := s.identify(ctx, r)
	if err != nil {
		return "", err
	}
	return s.grant(ctx, r, user, access)
}

// identify proves who asks, and that the proof was not made for another call.
// One that was counts against nobody: its owner is not who sent it.
func (s *Service) identify(ctx context.Context, r *tokenRequest) (id.UserID, error) {
	user, err := s.verifier.Verify(ctx, r.openID)
	if err != nil {
		s.log.Debug().Err(err).Msg("OpenID token not verified")
		return "", fmt.Errorf("%w (%w)", errUnauthorized, err)
	}
	if r.claimed != "" && r.claimed != user {
		return "", errUnauthorized
	}
	proof, use := proofOf(r.openID), useOf(user, r.slot.SFURoom(), r.deviceID)
	if s.proofs.usedElsewhere(proof, use) {
		s.log.Debug().Msg("OpenID token was used for another room or device before")
		return "", errUnauthorized
	}
	if err := limited(s.limits.User(user)); err != nil {
		return "", err
	}
	if !s.proofs.bind(proof, use) {
		return "", errUnauthorized
	}
	return user, nil
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
		if err := limited(s.openings.take(user, grant.Room, min(c.EmptyTimeout, openingTime))); err != nil {
			return "", err
		}
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
	if err == nil {
		err = s.store.TrimGrants(ctx, user)
	}
	if err != nil {
		return "", err
	}
	token, err := s.tokens.Sign(grant)
	if err != nil {
		return "", err
	}
	return token, nil
}

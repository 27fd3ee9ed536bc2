package focus

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// errUnauthorized says the same whatever was wrong with the proof of identity:
// which part it was is nothing a stranger should learn.
var errUnauthorized = mautrix.RespError{
	ErrCode: "M_UNAUTHORIZED", StatusCode: http.StatusUnauthorized,
	Err: "the OpenID token could not be verified",
}

// authorise is the one way to a token, or to have a leave taken over, in the
// order of the design: the policy and the limits before anything goes out, then
// who it is and whether the proof was made for this, then whether they are in
// the room, then what they may do by the policy and the room's own rules, the SFU room, the grant row, the leave, and
// the token last.
func (s *Service) authorise(ctx context.Context, r *tokenRequest) (string, error) {
	if r.delay.asked() && !s.delegates() {
		return "", mautrix.MBadJSON.WithMessage("delayed leaves are not taken over here; ask again without delay_id and delay_timeout")
	}
	access := s.policy.Access(r.server())
	if !access.Join {
		return "", mautrix.MForbidden.WithMessage("users of this server may not join calls here")
	}
	// Our own users may learn at once that they ask for the wrong SFU; others
	// once it is known that they may ask for this one.
	if (r.route == routeProxied || r.route == routeProxiedDelegate) && !s.isOurs(r.sfuURL) {
		return "", errOtherSFU
	}
	if err := limited(s.limits.Server(r.server())); err != nil {
		return "", err
	}
	server := strings.ToLower(r.server())
	if !s.gate.enter(server) {
		return "", limitError{busyWait}
	}
	defer s.gate.leave(server)
	user, err := s.identify(ctx, r)
	if err != nil {
		return "", err
	}
	if err := s.mayDelegate(ctx, r, access); err != nil {
		return "", err
	}
	proof := unverified
	if s.required() {
		proof = verified
		joined, err := s.joined(ctx, r.slot.RoomID, user)
		switch {
		case err != nil && r.route.givesNoToken():
			// Who is in the call may still say how to leave it.
			if _, err := s.held(ctx, r, user, err); err != nil {
				return "", err
			}
		case err != nil:
			return s.again(ctx, r, user, err)
		case !joined:
			return "", errNotJoined
		}
	} else {
		s.metrics.membership.WithLabelValues(unverified).Inc()
	}
	if r.route == routeFederated && !s.isOurs(r.sfuURL) {
		return "", errOtherSFU
	}
	if r.route.givesNoToken() {
		return "", s.delegateAlone(ctx, r, user)
	}
	return s.grant(ctx, r, user, proof)
}

// identify proves who asks, and that the proof was not made for another call.
// One that was counts against nobody: its owner is not who sent it.
func (s *Service) identify(ctx context.Context, r *tokenRequest) (id.UserID, error) {
	if r.vouched != "" {
		return r.vouched, limited(s.limits.User(r.vouched))
	}
	user, err := s.verifier.Verify(ctx, r.openID)
	if err != nil {
		s.log.Debug().Err(err).Msg("OpenID token not verified")
		return "", fmt.Errorf("%w (%w)", errUnauthorized, err)
	}
	if r.claimed != "" && r.claimed != user {
		return "", errUnauthorized
	}
	if s.anyUse {
		return user, limited(s.limits.User(user))
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

// opens counts that the user has a room made. An SFU that others use as well
// has rooms for everybody.
func (s *Service) opens(user id.UserID, room matrixrtc.SFURoom, c *config.Focus) error {
	if s.shared {
		return nil
	}
	return limited(s.openings.take(user, room, min(c.EmptyTimeout, openingTime)))
}

// grant has the SFU room made for those who may start the call, records what
// the user is given, and signs the token for it.
func (s *Service) grant(ctx context.Context, r *tokenRequest, user id.UserID, proof string) (string, error) {
	now := s.now()
	rights, err := s.rightsToAToken(ctx, r, user)
	if err != nil {
		return "", err
	}
	c := s.config.Load()
	grant := matrixrtc.Grant{
		Room:     r.slot.SFURoom(),
		Identity: r.identity(user),
		Publish:  rights.Publish,
		Lifetime: c.TokenLifetime,

		UpdateOwnMetadata: s.metadata,
	}
	sfu, err := s.place(ctx, grant.Room)
	if err != nil {
		return "", err
	}
	// Of those who join a call together, the first has the room made for all.
	ensure := rights.Start && !s.ensured.has(grant.Room, now)
	if ensure {
		if err := s.opens(user, grant.Room, c); err != nil {
			return "", err
		}
		if err := s.ensureRoom(ctx, sfu, grant.Room, s.boundsOf(r.server())); err != nil {
			return "", err
		}
		s.ensured.add(grant.Room, now)
	}
	given, err := s.record(ctx, r, GrantRow{
		Grant:      grant,
		SFU:        sfu,
		Slot:       r.slot,
		Member:     matrixrtc.Member{UserID: user, DeviceID: r.deviceID, ID: r.memberID},
		ServerName: r.server(),
		Route:      string(r.route),
		Membership: proof,
		MayCreate:  rights.Start,
		Ensured:    ensure,
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
	given.Term = s.termOf(given.Term)
	token, err := s.tokens.Sign(given)
	if err != nil {
		return "", err
	}
	return token, nil
}

// termOf is a term as it stands in a token: in none for a shared SFU, where
// nobody else knows what it means.
func (s *Service) termOf(term int64) int64 {
	if s.shared {
		return matrixrtc.UnknownTerm
	}
	return term
}

package focus

import (
	"context"
	"errors"

	"passerelle/focus/matrixrtc"
)

// maxGivenAgain bounds how often one request is decided anew because what it is
// to be given was taken back meanwhile.
const maxGivenAgain = 3

// record stores a grant, where anybody would ever ask for it, and returns it as
// it was given. What was taken back before it is written, whenever that was and
// whoever did it, is given again only when that is decided anew: an answer from
// before must not undo a revocation.
func (s *Service) record(ctx context.Context, r *tokenRequest, g GrantRow) (matrixrtc.Grant, error) {
	if s.unrecorded {
		g.Term = matrixrtc.UnknownTerm
		return g.Grant, nil
	}
	for range maxGivenAgain {
		term, err := s.store.PutGrant(ctx, g)
		switch {
		case err == nil:
			g.Term = term
			return g.Grant, s.store.TrimGrants(ctx, g.Member.UserID, g.IssuedAt)
		case !errors.Is(err, ErrRevoked):
			return matrixrtc.Grant{}, err
		}
		if err := s.decideAnew(ctx, r, &g); err != nil {
			return matrixrtc.Grant{}, err
		}
	}
	return matrixrtc.Grant{}, errNotJoined
}

// decideAnew reads which revocation stands in the way, and then asks again what
// the user may do: that is known to be of after the revocation by its term, which
// no other one has, and needs no clock. Where nobody is asked who is in the room,
// the policy alone decides, as of a request that came a moment later.
func (s *Service) decideAnew(ctx context.Context, r *tokenRequest, g *GrantRow) error {
	held, err := s.store.Standing(ctx, g.Room, g.Identity)
	if err != nil {
		return err
	}
	g.After = held.Term
	if g.Membership == verified {
		joined, err := s.members.Confirm(ctx, r.slot.RoomID, g.Member.UserID)
		switch {
		case err != nil:
			return unknown(err)
		case !joined:
			return errNotJoined
		}
	}
	rights, err := s.rightsToAToken(ctx, r, g.Member.UserID)
	if err != nil {
		return err
	}
	g.Publish, g.MayCreate, g.Ensured = rights.Publish, rights.Start, g.Ensured && rights.Start
	return nil
}

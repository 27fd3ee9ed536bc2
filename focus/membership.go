package focus

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// Members says who is joined to a Matrix room, as our own homeserver sees it.
// An error means that it is not known. homeserver.Membership is one.
type Members interface {
	// Joined may rest on an answer a few seconds old, and waits a moment for a
	// join that is on its way from another server.
	Joined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error)
	// Still is Joined for who was joined a moment ago: no join is waited for.
	Still(ctx context.Context, room id.RoomID, user id.UserID) (bool, error)
	// Confirm asks now, once.
	Confirm(ctx context.Context, room id.RoomID, user id.UserID) (bool, error)
	// Here tells whether anybody of our own server is joined to the room.
	Here(ctx context.Context, room id.RoomID) (bool, error)
	// Present tells whether anybody of a server is joined to the room; the
	// answer may be a few seconds old.
	Present(ctx context.Context, room id.RoomID, server string) (bool, error)
}

// How membership was proved, as it stands in the grant row.
const (
	verified   = "verified"
	unverified = "unverified"
)

var (
	// errNotJoined says the same of a room that there is not and of one that
	// the user is not in, has left or was banned from. Never 404: clients take
	// that for a service that is too old.
	errNotJoined = mautrix.MForbidden.WithMessage("only members of the room may join its calls")
	// errMembershipUnknown is for who has no token yet.
	errMembershipUnknown = mautrix.RespError{
		ErrCode: "M_UNKNOWN", StatusCode: http.StatusBadGateway,
		Err: "the homeserver does not answer; try again",
	}
	errNoHomeserver = errors.New("no homeserver can be asked; set homeserver and restart")
)

// required: tokens are for members of the room alone.
func (s *Service) required() bool { return s.config.Load().Membership != unverified }

// joined asks whether the user is in the room, and counts the answer.
func (s *Service) joined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	if s.members == nil {
		// The configuration was read again and asks for more than runs.
		s.metrics.membership.WithLabelValues("unknown").Inc()
		return false, errNoHomeserver
	}
	joined, err := s.members.Joined(ctx, room, user)
	answer := "not_joined"
	if err != nil {
		answer = "unknown"
	} else if joined {
		answer = "joined"
	}
	s.metrics.membership.WithLabelValues(answer).Inc()
	return joined, err
}

// withheld is an error by which the homeserver answers and does not say it. It
// says it of the rooms that it lets us see, and so may not be told from its no.
type withheld interface {
	error
	Withheld() bool
}

// held is the living grant of who asks while the homeserver is silent. Whoever
// has none is told of the silence; where it is of some rooms alone, they are told
// no.
func (s *Service) held(ctx context.Context, r *tokenRequest, user id.UserID, silence error) (Standing, error) {
	held, err := s.store.Standing(ctx, r.slot.SFURoom(), r.identity(user))
	switch {
	case err != nil:
		return Standing{}, err
	case !held.Living() || held.UserID != user || !held.Verified || !s.now().Before(held.ExpiresAt):
		return Standing{}, unknown(silence)
	}
	return held, nil
}

// unknown is what they are told of whom it is not known whether they are in the
// room.
func unknown(silence error) error {
	refusal := errMembershipUnknown
	if w, ok := errors.AsType[withheld](silence); ok && w.Withheld() {
		refusal = errNotJoined
	}
	return fmt.Errorf("%w (%w)", refusal, silence)
}

// again is for who asks while the homeserver is silent: the holder of a living
// grant gets the same once more, for as long as it was given; a first token
// nobody gets.
func (s *Service) again(ctx context.Context, r *tokenRequest, user id.UserID, silence error) (string, error) {
	held, err := s.held(ctx, r, user, silence)
	if err != nil {
		return "", err
	}
	rights, err := s.rightsToAToken(ctx, r, user)
	if err != nil {
		return "", err
	}
	now := s.now()
	grant := matrixrtc.Grant{
		Room: r.slot.SFURoom(), Identity: r.identity(user),
		Publish: held.Publish & rights.Publish, Lifetime: held.ExpiresAt.Sub(now),
		UpdateOwnMetadata: s.metadata,
	}
	grant.Term = s.termOf(held.Term)
	if held.MayCreate && rights.Start {
		sfu, err := s.place(ctx, grant.Room)
		if err != nil {
			return "", err
		}
		if err := s.ensureRoom(ctx, sfu, grant.Room, s.boundsOf(held.StartedBy)); err != nil {
			return "", err
		}
		if err := s.store.RoomEnsured(ctx, grant.Room, r.server(), now); err != nil {
			return "", err
		}
	}
	if r.delay.asked() {
		if err := s.delegate(ctx, r, user); err != nil {
			return "", err
		}
	}
	return s.tokens.Sign(grant)
}

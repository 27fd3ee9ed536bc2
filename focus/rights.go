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

var (
	errRoomForbids = mautrix.MForbidden.WithMessage("the room's rules do not let this user join its calls")
	// errRulesUnknown is for who has no token yet.
	errRulesUnknown = mautrix.RespError{
		ErrCode: "M_UNKNOWN", StatusCode: http.StatusBadGateway,
		Err: "the room's rules cannot be read now; try again",
	}
)

// errRulesSilent: the room has rules, and they cannot be read now.
var errRulesSilent = errors.New("the room's rules cannot be read")

// unknownRules are those of rooms that nobody has read.
type unknownRules struct{}

func (unknownRules) Rights(context.Context, matrixrtc.SlotKey, id.UserID) (matrixrtc.Rights, bool, error) {
	return matrixrtc.Rights{}, false, nil
}

// Holder is one who has a grant, and what stands in it.
type Holder struct {
	Room     matrixrtc.SFURoom
	Identity matrixrtc.Identity
	SFU      string
	Slot     matrixrtc.SlotKey
	UserID   id.UserID
	// ServerName is whose rule counts for the user.
	ServerName string
	Publish    matrixrtc.Sources
}

// rightsOf is what the holder may do now: what the policy gives to the users of
// the server, and of that what the room's own rules leave to the user.
func (s *Service) rightsOf(ctx context.Context, h Holder) (matrixrtc.Rights, error) {
	rights := s.policy.Access(h.ServerName).Rights()
	if !rights.Join {
		return matrixrtc.Rights{}, nil
	}
	room, known, err := s.rules.Rights(ctx, h.Slot, h.UserID)
	switch {
	case err != nil:
		return matrixrtc.Rights{}, fmt.Errorf("%w: %w", errRulesSilent, err)
	case known:
		rights = rights.And(room)
	}
	if !rights.Join {
		return matrixrtc.Rights{}, nil
	}
	return rights, nil
}

// rightsToAToken is rightsOf for who asks for a token, in the words of clients.
// While the room's rules cannot be read, the holder of a living grant gets the
// same once more, and nobody a first one.
func (s *Service) rightsToAToken(ctx context.Context, r *tokenRequest, user id.UserID) (matrixrtc.Rights, error) {
	rights, err := s.rightsOf(ctx, Holder{Slot: r.slot, UserID: user, ServerName: r.server()})
	if err != nil {
		silence := fmt.Errorf("%w (%w)", errRulesUnknown, err)
		held, err := s.store.Standing(ctx, r.slot.SFURoom(), r.identity(user))
		if err != nil || !held.Living() || held.UserID != user || !s.now().Before(held.ExpiresAt) {
			return matrixrtc.Rights{}, errors.Join(silence, err)
		}
		rights = s.lastKnown(held)
	}
	if !rights.Join {
		return matrixrtc.Rights{}, errRoomForbids
	}
	return rights, nil
}

// lastKnown is what the policy now, and the room's rules when they were last
// read, let the holder of a grant do.
func (s *Service) lastKnown(held Standing) matrixrtc.Rights {
	return s.policy.Access(held.ServerName).Rights().And(matrixrtc.Rights{Join: true, Start: held.MayCreate, Publish: held.Publish})
}

// boundsOf are those of the calls that users of the server start: of its rule,
// and where that says nothing, of the configuration.
func (s *Service) boundsOf(server string) matrixrtc.Bounds {
	c := s.config.Load()
	return s.policy.Access(server).Calls.Or(matrixrtc.Bounds{MaxParticipants: c.MaxParticipants, Longest: c.LongestCall})
}

// holdTo makes the row and the SFU say what the holder may do now. While the
// room's rules cannot be read all stays as it is.
func (s *Service) holdTo(ctx context.Context, h Holder, onSFU matrixrtc.Sources) error {
	rights, err := s.rightsOf(ctx, h)
	switch {
	case err != nil:
		return err
	case !rights.Join:
		_, err := s.Revoke(ctx, Whom{SFURoom: h.Room, Identity: h.Identity}, "the rules do not let them join any more")
		return err
	}
	if rights.Publish != h.Publish {
		if living, err := s.store.SetPublish(ctx, h.Room, h.Identity, rights.Publish); err != nil || !living {
			return err
		}
		s.metrics.rights.Inc()
	}
	if rights.Publish != onSFU {
		s.allow(ctx, h.SFU, h.Room, h.Identity, rights.Publish)
	}
	return nil
}

// allow tells the SFU what a participant may send, as far as that is possible
// now.
func (s *Service) allow(ctx context.Context, sfu string, room matrixrtc.SFURoom, who matrixrtc.Identity, publish matrixrtc.Sources) {
	server := s.sfus[sfu]
	if server == nil {
		return
	}
	err := server.Allow(ctx, room, who, matrixrtc.Permissions{Publish: publish, UpdateOwnMetadata: s.metadata})
	if err != nil {
		s.log.Warn().Err(err).Msg("What a participant may send could not be changed; tried again soon")
	}
}

// keepTo holds what the SFU says of a participant against the rights, and the
// row, which was read before: a token that was asked for while rights changed
// has written those of before. What does not agree is looked at anew, since by
// now it may. LiveKit ends the tracks of a source that was taken, but it believes
// its clients which source a track is from: who is known to be limited and still
// sends something else gets no further.
func (s *Service) keepTo(ctx context.Context, room WatchedRoom, p matrixrtc.Participant, known WatchedParticipant) error {
	rights, err := s.rightsOf(ctx, Holder{Slot: room.Slot, UserID: known.UserID, ServerName: known.ServerName})
	changed := err == nil && (!rights.Join || rights.Publish != known.Publish)
	switch {
	case changed || p.Publish != known.Publish:
		return s.recheck(ctx, room.Room, p.Identity, p.JoinedAt, p.Publish)
	case p.Sends&^known.Publish != 0:
		s.log.Warn().Msg("A participant sends what it may not, under another name, and is removed")
		s.metrics.disguised.Inc()
		_, err := s.Revoke(ctx, Whom{SFURoom: room.Room, Identity: p.Identity}, "sent "+(p.Sends&^known.Publish).String()+" under another name")
		return err
	}
	return nil
}

// ApplyRights makes what those who are connected may do what the policy and the
// rules say now, in the calls of one room, or of all for "". Those who may not be
// there any more are put out.
func (s *Service) ApplyRights(ctx context.Context, room id.RoomID) error {
	if s.shared {
		return nil
	}
	var failures error
	var after Holder
	for {
		holders, err := s.store.Connected(ctx, room, after, maxHolders)
		if err != nil {
			return errors.Join(failures, err)
		}
		failures = errors.Join(failures, s.holdAll(ctx, holders))
		if len(holders) < maxHolders {
			return failures
		}
		after = holders[len(holders)-1]
	}
}

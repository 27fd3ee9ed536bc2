package focus

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/id"
)

const (
	// MembersEvery is for [Options.MembersEvery], where nobody says otherwise.
	MembersEvery = 5 * time.Second
	// maxMembersAsked bounds the people of one round; the next goes on from there.
	maxMembersAsked = 2000
	// membersAtOnce bounds the questions at one time.
	membersAtOnce = 8
)

// sweepMembers asks until ctx is done. The interval is the longest between the
// beginnings of two rounds.
func (s *Service) sweepMembers(ctx context.Context) error {
	var after InCall
	return s.repeat(ctx, s.membersEvery*2/3, "Who is in the calls could not be read; tried again soon", func(ctx context.Context) (err error) {
		after, err = s.SweepMembers(ctx, after)
		return err
	})
}

// SweepMembers asks once, for those who come after the one named, and for all
// onlookers, whether they are still in their rooms, with one question for each
// person in a room; who is not is put out of its calls. It returns where the next
// round starts: the zero value for the beginning. Where nobody can be asked or need be, it does
// nothing.
func (s *Service) SweepMembers(ctx context.Context, after InCall) (next InCall, err error) {
	if s.members == nil || !s.required() {
		return InCall{}, nil
	}
	people, err := s.store.InCalls(ctx, after, maxMembersAsked)
	if err != nil {
		return after, err
	}
	if len(people) == maxMembersAsked {
		next = people[len(people)-1]
	}
	var asking errgroup.Group
	asking.SetLimit(membersAtOnce)
	for _, p := range s.onlookers.among(people, s.now()) {
		asking.Go(func() error { return s.MemberGone(ctx, p.RoomID, p.UserID) })
	}
	return next, asking.Wait()
}

// MemberGone is told that the user may have left the room, or have been thrown
// out of it: by the sweep, or by whoever reads the room's events. It asks the
// homeserver again, and only when that says no takes back what the user was
// given for the room's calls. A homeserver that does not answer throws nobody
// out.
func (s *Service) MemberGone(ctx context.Context, room id.RoomID, user id.UserID) error {
	if s.members == nil || !s.required() {
		return nil
	}
	joined, err := s.members.Confirm(ctx, room, user)
	switch {
	case err != nil:
		// The homeserver's client says once that it is silent.
		s.log.Debug().Err(err).Msg("Whether somebody is still in the room is not known")
		return nil
	case joined:
		return nil
	}
	if _, err := s.Revoke(ctx, Whom{RoomID: room, UserID: user}, "not in the room any more"); err != nil {
		return fmt.Errorf("put out of the call who left the room: %w", err)
	}
	return s.closeAbandoned(ctx, room)
}

// closeAbandoned ends the calls of a room in which our own server is not any
// more, and so cannot say who may be there: whoever was given anything for them
// loses it, connected or not. The SFU closes a room that is empty.
func (s *Service) closeAbandoned(ctx context.Context, room id.RoomID) error {
	here, err := s.members.Here(ctx, room)
	if err != nil || here {
		return nil
	}
	holders, err := s.store.Holders(ctx, room)
	if err != nil {
		return err
	}
	for _, user := range holders {
		if _, err := s.Revoke(ctx, Whom{RoomID: room, UserID: user}, "our homeserver left the room"); err != nil {
			return fmt.Errorf("end the calls of a room that our homeserver left: %w", err)
		}
	}
	return nil
}

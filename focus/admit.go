package focus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"passerelle/focus/matrixrtc"
)

var (
	// ErrNotAdmitted is returned by [Service.Admit] for a ticket without a
	// living grant.
	ErrNotAdmitted = errors.New("no living grant")
	// ErrNoCall is returned by [Service.Admit] for a ticket whose holder may not
	// start the call, and nobody else has.
	ErrNoCall = errors.New("the call has not been started")
	// ErrFull is returned by [Service.Admit] when as many are in the call as may
	// be.
	ErrFull = errors.New("the call is full")
)

// Admit decides whether the holder of a ticket may be connected to its SFU room
// now, on which SFU, and with which rights. It has the room made where the SFU
// has lost it: after its restart, or after everybody lost the connection for
// longer than the departure timeout.
func (s *Service) Admit(ctx context.Context, t matrixrtc.Ticket) (matrixrtc.Admission, error) {
	standing, err := s.store.Standing(ctx, t.Room, t.Identity)
	switch {
	case err != nil:
		return matrixrtc.Admission{}, err
	case !standing.Granted:
		return matrixrtc.Admission{}, fmt.Errorf("%w: none was given", ErrNotAdmitted)
	case standing.Revoked:
		return matrixrtc.Admission{}, fmt.Errorf("%w: it was revoked", ErrNotAdmitted)
	case !standing.covers(t):
		return matrixrtc.Admission{}, fmt.Errorf("%w: the token is from before a revocation", ErrNotAdmitted)
	}
	// What the token and the row say was right when they were written.
	if err := s.stillMember(ctx, standing, t); err != nil {
		return matrixrtc.Admission{}, err
	}
	rights, err := s.rightsOf(ctx, standing.Holder(t.Room, t.Identity))
	switch {
	case errors.Is(err, errRulesSilent):
		rights = s.lastKnown(standing)
	case err != nil:
		return matrixrtc.Admission{}, err
	}
	open, err := s.isOpen(ctx, t.Room, standing)
	switch {
	case err != nil:
		return matrixrtc.Admission{}, err
	case !rights.Join:
		return matrixrtc.Admission{}, fmt.Errorf("%w: the rules have changed", ErrNotAdmitted)
	case !open && !rights.Start:
		return matrixrtc.Admission{}, ErrNoCall
	}
	if rights.Publish != standing.Publish {
		if _, err := s.store.SetPublish(ctx, t.Room, t.Identity, rights.Publish); err != nil {
			return matrixrtc.Admission{}, err
		}
	}
	admission := matrixrtc.Admission{SFU: standing.SFU, Epoch: standing.Epoch, Publish: rights.Publish}
	if s.sfus[admission.SFU] == nil {
		if admission.SFU, admission.Epoch, err = s.store.MoveSession(ctx, t.Room, standing.SFU, s.home); err != nil {
			return matrixrtc.Admission{}, err
		}
		if s.sfus[admission.SFU] == nil {
			return matrixrtc.Admission{}, fmt.Errorf("the call is on the SFU %q, which this process does not have", admission.SFU)
		}
	}
	if err := s.makeReady(ctx, admission.SFU, t, standing, open); err != nil {
		return matrixrtc.Admission{}, err
	}
	return admission, nil
}

// makeReady keeps a place for the holder of a ticket and has the SFU have the
// room. Who comes to a call that does not go on has started it.
func (s *Service) makeReady(ctx context.Context, sfu string, t matrixrtc.Ticket, standing Standing, open bool) error {
	starter := standing.StartedBy
	if !open {
		starter = standing.ServerName
	}
	bounds := s.boundsOf(starter)
	if bounds.MaxParticipants > 0 {
		if err := s.store.TakeSeat(ctx, t.Room, t.Identity, bounds.MaxParticipants, s.now()); err != nil {
			return err
		}
	}
	if err := s.ensureRoom(ctx, sfu, t.Room, bounds); err != nil || open {
		return err
	}
	return s.store.RoomEnsured(ctx, t.Room, standing.ServerName, s.now())
}

// isOpen tells whether the call goes on, so that who may only join it may come. As
// long as nobody reports that the SFU has closed the room, it has it for the times
// that it was told; and those who all lost their connections, as when the SFU
// crashes, come back to it. But the report may be lost, and then a room in which
// nobody is any more is none. For those who are there and only look on, the watch
// says again and again that the SFU has it, more often than each minute.
func (s *Service) isOpen(ctx context.Context, room matrixrtc.SFURoom, standing Standing) (bool, error) {
	c, now := s.config.Load(), s.now()
	switch {
	case standing.EnsuredAt.IsZero():
		return false, nil
	case now.Sub(standing.EnsuredAt).Abs() < max(c.EmptyTimeout, emptyFor): // made, or found with onlookers, lately
		return true, nil
	}
	return s.store.InUse(ctx, room, now, max(c.DepartureTimeout, emptyFor))
}

// doorWait is how long the homeserver has to say whether somebody is still in the
// room: less than a client waits for the door, which has to answer in time when
// the homeserver does not.
const doorWait = 2 * time.Second

// stillMember asks whether the holder of a ticket is still in the room, where
// that is required. A no takes back what they were given. A homeserver that is
// silent, or keeps it to itself, keeps nobody out of whom it was known, for as
// long as what they were given is good, or what the SFU has made of it for who is
// connected: the same holders are given another token meanwhile.
func (s *Service) stillMember(ctx context.Context, standing Standing, t matrixrtc.Ticket) error {
	if !s.required() {
		return nil
	}
	joined, err := false, error(errNoHomeserver)
	if s.members != nil {
		soon, cancel := context.WithTimeout(ctx, doorWait)
		joined, err = s.members.Still(soon, standing.Slot.RoomID, standing.UserID)
		cancel()
	}
	now := s.now()
	switch {
	case err == nil && joined:
		return nil
	case err == nil:
		_, err := s.Revoke(ctx, Whom{RoomID: standing.Slot.RoomID, UserID: standing.UserID}, "not in the room any more, at the door")
		return errors.Join(fmt.Errorf("%w: the holder is not in the room", ErrNotAdmitted), err)
	case standing.Verified && (now.Before(standing.ExpiresAt) || now.Before(t.Expires)):
		s.log.Debug().Err(err).Msg("Whether somebody is still in the room is not known; they were, and may connect")
		return nil
	}
	return fmt.Errorf("whether the holder of a token is in the room is not known: %w", err)
}

// place is the SFU for a room: the one that has it, or Home.
func (s *Service) place(ctx context.Context, room matrixrtc.SFURoom) (string, error) {
	if len(s.sfus) == 1 {
		// Whatever the row says, there is no other.
		return s.home, nil
	}
	name, _, err := s.store.SessionOf(ctx, room)
	if err != nil || s.sfus[name] == nil {
		return s.home, err
	}
	return name, nil
}

// ensureRoom has the SFU make the room. Where clients reach it without the door,
// it holds the bound on their number, as it was when it made the room. Equal
// requests at one time share one call, unless the SFU is
// shared: it is asked once for each token.
func (s *Service) ensureRoom(ctx context.Context, sfu string, room matrixrtc.SFURoom, b matrixrtc.Bounds) error {
	c := s.config.Load()
	o := matrixrtc.RoomOptions{
		EmptyTimeout:     c.EmptyTimeout,
		DepartureTimeout: c.DepartureTimeout,
	}
	if s.noDoor {
		o.MaxParticipants = b.MaxParticipants
	}
	if s.shared {
		return s.sfus[sfu].EnsureRoom(ctx, room, o)
	}
	// A caller that gives up must not fail those who share its call; the SFU
	// client has a deadline of its own.
	shared := context.WithoutCancel(ctx)
	done := s.ensuring.DoChan(sfu+"\n"+string(room), func() (any, error) {
		return nil, s.sfus[sfu].EnsureRoom(shared, room, o)
	})
	select {
	case result := <-done:
		return result.Err
	case <-ctx.Done():
		return fmt.Errorf("create SFU room: %w", ctx.Err())
	}
}

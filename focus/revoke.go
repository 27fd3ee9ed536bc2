package focus

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// Whom names the grants to be taken back: those for which everything that is
// set holds. Something must be set, and a room alone is not enough.
type Whom struct {
	SFURoom  matrixrtc.SFURoom
	Identity matrixrtc.Identity
	UserID   id.UserID
	// RoomID is the Matrix room, with all its slots.
	RoomID id.RoomID
}

// ErrWhom is returned for a Whom that names nobody.
var ErrWhom = errors.New("a revocation names an identity in an SFU room, or a user")

// removals bounds how many participants are removed at one time.
const removals = 8

// Revoke takes grants back: their holders are disconnected, and no token that
// they have lets them in again, also none that the SFU made for them. A token
// that they are given later does, at once. Why is for the log, at
// level debug.
//
// The rows are committed first. Then the door is closed, and only then the SFU
// is asked. If it does not answer, the watch tries again (see [Service.Run]);
// that is no error.
func (s *Service) Revoke(ctx context.Context, w Whom, why string) (int, error) {
	if w.UserID == "" && (w.SFURoom == "" || w.Identity == "") {
		return 0, ErrWhom
	}
	revoked, err := s.store.Revoke(ctx, w, s.now())
	if err != nil {
		return 0, err
	}
	for _, r := range revoked {
		if s.door != nil {
			s.door.Cut(r.Room, r.Identity)
		}
		s.metrics.revoked.Inc()
	}
	// What is committed is carried out, also when nobody waits any more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	var removing errgroup.Group
	removing.SetLimit(removals)
	for _, r := range revoked {
		removing.Go(func() error { s.remove(ctx, r.SFU, r.Room, r.Identity); return nil })
	}
	_ = removing.Wait()
	s.log.Info().Int("grants", len(revoked)).Msg("Grants revoked")
	s.log.Debug().Str("reason", why).Msg("Why grants were revoked")
	return len(revoked), nil
}

// removeTimeout bounds the removal of all participants of one revocation.
const removeTimeout = 10 * time.Second

// remove disconnects who has no living grant, as far as that is possible now.
func (s *Service) remove(ctx context.Context, sfu string, room matrixrtc.SFURoom, who matrixrtc.Identity) {
	server := s.sfus[sfu]
	if server == nil {
		return
	}
	if err := server.Remove(ctx, room, who); err != nil {
		s.log.Warn().Err(err).Msg("A participant without a grant could not be removed; tried again soon")
	}
}

// recheck removes a participant whom the SFU has let in without a living
// grant: in time between a revocation and its removal, or where clients reach
// the SFU without the door. Who was there before we knew of the call was let in
// by somebody else, whose place we have taken, or stood in rows that are lost:
// they may stay until they connect anew.
//
// Who has a grant is held to what it allows now, whatever the SFU, by a token
// from before, lets them send.
func (s *Service) recheck(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity, joined time.Time, onSFU matrixrtc.Sources) error {
	standing, err := s.store.Standing(ctx, room, who)
	if err != nil {
		return err
	}
	return s.recheckBy(ctx, standing, room, who, joined, onSFU)
}

// recheckBy is recheck by what the rows were just found to say.
func (s *Service) recheckBy(ctx context.Context, standing Standing, room matrixrtc.SFURoom, who matrixrtc.Identity, joined time.Time, onSFU matrixrtc.Sources) error {
	if standing.Living() {
		err := s.holdTo(ctx, standing.Holder(room, who), onSFU)
		if errors.Is(err, errRulesSilent) {
			s.log.Debug().Err(err).Msg("What a participant may do is not known")
			if last := s.lastKnown(standing); last.Publish != onSFU {
				s.allow(ctx, standing.SFU, room, who, last.Publish)
			}
			return nil
		}
		return err
	}
	sfu, since, err := s.store.SessionOf(ctx, room)
	if err != nil {
		return err
	}
	// The SFU's clock shows whole seconds.
	if !standing.Granted && joined.Add(time.Second).Before(since) {
		return nil
	}
	s.metrics.strangers.Inc()
	s.remove(ctx, sfu, room, who)
	return nil
}

// recheckOurs is recheck on an SFU that others let people in to as well: who
// has no grant of ours may have one of theirs.
func (s *Service) recheckOurs(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) error {
	standing, err := s.store.Standing(ctx, room, who)
	if err != nil || !standing.Revoked {
		return err
	}
	s.metrics.strangers.Inc()
	s.remove(ctx, standing.SFU, room, who)
	return nil
}

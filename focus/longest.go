package focus

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"passerelle/focus/matrixrtc"
)

const (
	// longEvery is how often is looked for calls that are too long; up to half of
	// it is added at random.
	longEvery = 4 * time.Second
	// maxCalls bounds the calls of one round; the next goes on from there.
	maxCalls = 1000
)

// endLong ends calls that are too long, until ctx is done.
func (s *Service) endLong(ctx context.Context) error {
	var after matrixrtc.SFURoom
	return s.repeat(ctx, longEvery, "Calls that are too long could not be ended; tried again soon", func(ctx context.Context) (err error) {
		after, err = s.EndLongCalls(ctx, after)
		return err
	})
}

// EndLongCalls ends once, of the calls that come after the given room, those
// that have gone on for longer than they may: nothing that was given for them is
// good any more, and the SFU closes the room. Who asks for another token begins
// another call. It returns where the next round starts: empty for the beginning.
func (s *Service) EndLongCalls(ctx context.Context, after matrixrtc.SFURoom) (next matrixrtc.SFURoom, err error) {
	calls, err := s.store.Running(ctx, after, maxCalls)
	if err != nil {
		return after, err
	}
	if len(calls) == maxCalls {
		next = calls[len(calls)-1].Room
	}
	var ending errgroup.Group
	ending.SetLimit(removals)
	for _, call := range calls {
		longest := s.boundsOf(call.StartedBy).Longest
		if longest == 0 || s.now().Sub(call.StartedAt) < longest {
			continue
		}
		ending.Go(func() error { return s.endCall(ctx, call, longest) })
	}
	if err := ending.Wait(); err != nil {
		return after, err
	}
	return next, nil
}

// endCall commits the end first, as [Service.Revoke] does. An SFU that does not
// answer keeps people for whom the watch has no grant.
func (s *Service) endCall(ctx context.Context, call RunningCall, longest time.Duration) error {
	ended, revoked, err := s.store.EndCall(ctx, call, s.now())
	if err != nil || !ended {
		return err
	}
	s.ensured.forget(call.Room)
	for _, r := range revoked {
		if s.door != nil {
			s.door.Cut(r.Room, r.Identity)
		}
		s.metrics.revoked.Inc()
	}
	s.metrics.ended.Inc()
	s.log.Info().Stringer("longest", longest).Int("grants", len(revoked)).Msg("A call was as long as it may be and has been ended")
	s.log.Debug().Str("sfu_room", string(call.Room)).Msg("Which call was ended")
	server := s.sfus[call.SFU]
	if server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if err := server.End(ctx, call.Room); err != nil {
		s.log.Warn().Err(err).Msg("A call that was ended could not be closed; its participants are removed soon")
	}
	return nil
}

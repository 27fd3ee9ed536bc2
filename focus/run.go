package focus

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// sweepEvery is how often rows that are of no more use are deleted; up to half
// of it is added at random, so that replicas do not sweep together.
const sweepEvery = 10 * time.Minute

// Run does what no request waits for, until ctx is done: it deletes old rows,
// asks the SFUs who is there, and the homeserver whether they are still in the
// room.
func (s *Service) Run(ctx context.Context) error {
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return s.sweep(ctx) })
	if !s.shared {
		running.Go(func() error { return s.watch(ctx) })
	}
	if s.membersEvery > 0 {
		running.Go(func() error { return s.sweepMembers(ctx) })
	}
	return running.Wait()
}

func (s *Service) sweep(ctx context.Context) error {
	timer := time.NewTimer(rand.N(sweepEvery))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := s.store.Sweep(ctx, s.now()); err != nil && ctx.Err() == nil {
			s.log.Err(err).Msg("Old rows not deleted; tried again later")
		}
		timer.Reset(sweepEvery + rand.N(sweepEvery/2))
	}
}

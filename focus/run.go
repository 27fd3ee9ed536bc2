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
// room, changes what those who are connected may do when that changes, and ends
// calls that are too long.
func (s *Service) Run(ctx context.Context) error {
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return s.sweep(ctx) })
	if !s.shared {
		running.Go(func() error { return s.watch(ctx) })
		running.Go(func() error { return s.followRights(ctx) })
		running.Go(func() error { return s.endLong(ctx) })
	}
	if s.membersEvery > 0 {
		running.Go(func() error { return s.sweepMembers(ctx) })
	}
	return running.Wait()
}

func (s *Service) sweep(ctx context.Context) error {
	return s.repeat(ctx, sweepEvery, "Old rows not deleted; tried again later", func(ctx context.Context) error {
		return s.store.Sweep(ctx, s.now())
	})
}

// repeat does something again and again until ctx is done. From one beginning
// to the next is at least that long, to which up to half is added at random; what
// takes long itself has a quarter of it behind it all the same. The first comes
// sooner. A failure is logged in the given words.
func (s *Service) repeat(ctx context.Context, every time.Duration, failed string, do func(context.Context) error) error {
	timer := time.NewTimer(rand.N(every))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began := time.Now()
		if err := do(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg(failed)
		}
		timer.Reset(max(every+rand.N(every/2+1)-time.Since(began), every/4))
	}
}

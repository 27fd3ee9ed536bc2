package sfu

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// stableAfter is how long a child must have run for its end to count as a
	// first one.
	stableAfter  = 30 * time.Second
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// keep calls attend again and again until ctx is done: at once after the first
// end, since a call waits for it; then with pauses that double. Its error is
// errFolder, which no start mends.
func (s *Supervisor) keep(ctx context.Context, attend func(context.Context) error) error {
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		err := attend(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errFolder) {
			return err
		}
		if time.Since(began) > stableAfter {
			backoff = 0
		}
		reason := reasonStart
		switch {
		case errors.Is(err, errEnded):
			reason = reasonEnded
		case errors.Is(err, errHung):
			reason = reasonHung
		}
		s.metrics.restarts.WithLabelValues(reason).Inc()
		s.log.Warn().Err(err).Str("reason", reason).Dur("pause_ms", backoff).Msg("The SFU is started again")
		pause(ctx, backoff)
		backoff = min(max(firstBackoff, 2*backoff), maxBackoff)
	}
	return nil
}

// pause waits for d, give or take a quarter, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d + rand.N(d/2) - d/4)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

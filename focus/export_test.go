package focus

import (
	"context"
	"time"
)

// SetClock replaces the clock.
func (s *Service) SetClock(now func() time.Time) { s.now = now }

// Repeat is how often what the Service does by itself is done.
func (s *Service) Repeat(ctx context.Context, every time.Duration, do func(context.Context) error) error {
	return s.repeat(ctx, every, "", do)
}

package focus

import (
	"context"
	"fmt"

	"passerelle/focus/matrixrtc"
)

// HandleSFUEvent records what the SFU reports and returns once it is
// committed. Deliveries repeat; a second one of the same event changes
// nothing. Events of rooms that are not ours are dropped.
func (s *Service) HandleSFUEvent(ctx context.Context, e matrixrtc.SFUEvent) error {
	if e.At.IsZero() {
		e.At = s.now()
	}
	if err := s.store.RecordEvent(ctx, e, s.now()); err != nil {
		return fmt.Errorf("record %s: %w", e.Type, err)
	}
	for _, o := range s.watching {
		o.SFUEvent(ctx, e)
	}
	return nil
}

// SFURestarted records that the SFU lost its memory: whoever was connected is
// not any more, and comes back as a new connection.
func (s *Service) SFURestarted(ctx context.Context) error {
	if err := s.store.CloseParticipants(ctx, "SFU_RESTARTED", s.now()); err != nil {
		return fmt.Errorf("record the SFU's restart: %w", err)
	}
	return nil
}

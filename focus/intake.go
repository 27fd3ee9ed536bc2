package focus

import (
	"context"
	"fmt"

	"passerelle/focus/matrixrtc"
)

// HandleSFUEvent records what an SFU reports and returns once it is committed
// and the observers are told. Deliveries repeat; a second one of the same event
// changes nothing. Events of rooms that are not ours are dropped.
func (s *Service) HandleSFUEvent(ctx context.Context, e matrixrtc.SFUEvent) error {
	if e.At.IsZero() {
		e.At = s.now()
	}
	if e.Type == matrixrtc.RoomFinished {
		s.ensured.forget(e.Room)
	}
	if s.shared {
		s.tell(ctx, e)
		if s.unrecorded {
			return nil
		}
		current, err := s.store.RecordEvent(ctx, e, s.now())
		if err != nil {
			return fmt.Errorf("record %s: %w", e.Type, err)
		}
		if current && e.Type == matrixrtc.ParticipantJoined {
			return s.recheckOurs(ctx, e.Room, e.Identity)
		}
		return nil
	}
	current, err := s.store.RecordEvent(ctx, e, s.now())
	if err != nil {
		return fmt.Errorf("record %s: %w", e.Type, err)
	}
	if !current {
		return nil
	}
	if e.Type == matrixrtc.ParticipantJoined {
		if err := s.recheck(ctx, e.Room, e.Identity, e.At, e.Publish); err != nil {
			return fmt.Errorf("check who joined: %w", err)
		}
	}
	s.tell(ctx, e)
	return nil
}

func (s *Service) tell(ctx context.Context, e matrixrtc.SFUEvent) {
	for _, o := range s.observers {
		o.SFUEvent(ctx, e)
	}
}

// reasonRestarted is the reason of those whose SFU is another one.
const reasonRestarted = "SFU_RESTARTED"

// SFURestarted records that the SFU lost its memory: whoever was connected is
// not any more, and comes back as a new connection.
func (s *Service) SFURestarted(ctx context.Context) error {
	s.ensured.forgetAll()
	if err := s.store.CloseParticipants(ctx, reasonRestarted, s.now()); err != nil {
		return fmt.Errorf("record the SFU's restart: %w", err)
	}
	return nil
}

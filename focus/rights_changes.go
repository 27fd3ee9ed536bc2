package focus

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/id"
)

const (
	// maxHolders bounds the participants that are read at once, and holdAtOnce
	// those whose rights are changed at one time.
	maxHolders = 500
	holdAtOnce = 8
	// maxChanged bounds the rooms whose rules have changed and that were not
	// looked at yet. More are all rooms.
	maxChanged = 1000
	// rightsPause is how long after a failure the rights are applied again; up to
	// half of it is added at random.
	rightsPause = 5 * time.Second
)

// RightsChanged is told that the policy is another one now.
func (s *Service) RightsChanged() { s.changes.add("") }

// RulesChanged is told, by whoever reads them, that the rules of a Matrix room
// have changed, or are known now, or not any more. It does not wait.
func (s *Service) RulesChanged(room id.RoomID) { s.changes.add(room) }

// changes are the rooms in whose calls rights may be others than they were; ""
// is all.
type changes struct {
	mu    sync.Mutex
	rooms map[id.RoomID]struct{}
	// wake holds a value when there are any.
	wake chan struct{}
}

func newChanges() *changes {
	return &changes{rooms: map[id.RoomID]struct{}{}, wake: make(chan struct{}, 1)}
}

func (c *changes) add(room id.RoomID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.rooms) >= maxChanged {
		room = ""
	}
	if _, all := c.rooms[""]; !all {
		if room == "" {
			clear(c.rooms)
		}
		c.rooms[room] = struct{}{}
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take returns the rooms and forgets them.
func (c *changes) take() []id.RoomID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rooms []id.RoomID
	for room := range c.rooms {
		rooms = append(rooms, room)
	}
	clear(c.rooms)
	return rooms
}

// followRights applies changes as they come, until ctx is done. What changed
// while nobody followed is applied first.
func (s *Service) followRights(ctx context.Context) error {
	s.changes.add("")
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changes.wake:
		}
		failed := false
		for _, room := range s.changes.take() {
			if err := s.ApplyRights(ctx, room); err != nil && ctx.Err() == nil {
				s.log.Warn().Err(err).Msg("What some participants may do could not be changed; tried again soon")
				s.changes.add(room)
				failed = true
			}
		}
		if !failed {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rightsPause + rand.N(rightsPause/2)):
		}
	}
}

// holdAll applies the rights of each. One whose rights cannot be known stands in
// nobody's way.
func (s *Service) holdAll(ctx context.Context, holders []Holder) error {
	var holding errgroup.Group
	holding.SetLimit(holdAtOnce)
	for _, h := range holders {
		// What the SFU says is what the row says; the watch looks after the rest.
		holding.Go(func() error { return s.holdTo(ctx, h, h.Publish) })
	}
	return holding.Wait()
}

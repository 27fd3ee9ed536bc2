package focus

import (
	"context"
	"slices"
	"sync"
	"time"

	"passerelle/focus/matrixrtc"
)

const (
	// maxOnlookers bounds how many onlookers are remembered.
	maxOnlookers = maxMembersAsked
	// onlookersKept is how long one is remembered: until the watch has asked the
	// SFU again.
	onlookersKept = 2 * watchEvery
)

// onlookers are those whom an SFU has let in and reports to nobody, since they
// send and receive nothing yet, and perhaps never will: they see who is in the
// call all the same. The watch finds them; no row says that they are there. As long
// as it finds any in a room in which nobody else is, the call there goes on.
type onlookers struct {
	mu   sync.Mutex
	seen map[InCall]time.Time
}

func newOnlookers() *onlookers { return &onlookers{seen: map[InCall]time.Time{}} }

// add remembers one who is there now. When there are too many somebody else is
// forgotten until the watch finds them again.
func (o *onlookers) add(who InCall, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.seen[who]; !known && len(o.seen) >= maxOnlookers {
		for other := range o.seen {
			delete(o.seen, other)
			break
		}
	}
	o.seen[who] = now
}

// among adds those who were there lately to the people, each once.
func (o *onlookers) among(people []InCall, now time.Time) []InCall {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) == 0 {
		return people
	}
	all := map[InCall]bool{}
	for _, who := range people {
		all[who] = true
	}
	people = slices.Clip(people)
	for who, at := range o.seen {
		switch {
		case now.Sub(at) >= onlookersKept:
			delete(o.seen, who)
		case !all[who]:
			people = append(people, who)
		}
	}
	return people
}

// recheckOnlooker is recheck for who is not reported as joined; the sweep asks
// whether they are still in the room. It tells whether they have a living grant.
func (s *Service) recheckOnlooker(ctx context.Context, room matrixrtc.SFURoom, p matrixrtc.Participant) (living bool, err error) {
	standing, err := s.store.Standing(ctx, room, p.Identity)
	if err != nil {
		return false, err
	}
	if standing.Living() {
		s.onlookers.add(InCall{RoomID: standing.Slot.RoomID, UserID: standing.UserID}, s.now())
	}
	return standing.Living(), s.recheckBy(ctx, standing, room, p.Identity, p.JoinedAt, p.Publish)
}

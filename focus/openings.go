package focus

import (
	"container/list"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

const (
	// maxOpenings bounds how many calls one user starts within openingTime:
	// each costs the SFU a room, even if nobody ever joins it. The slot is the
	// client's to choose, and with it the room.
	maxOpenings = 30
	openingTime = 5 * time.Minute
	// maxOpeners bounds how many users are kept account of; who is forgotten
	// starts over.
	maxOpeners = 10_000
)

// openings keeps account of which SFU rooms each user had made lately.
type openings struct {
	mu     sync.Mutex
	known  map[id.UserID]*list.Element // of *opener
	recent *list.List                  // the one who opened last is in front
}

type opener struct {
	user  id.UserID
	rooms []opening // as they were opened, none twice
}

type opening struct {
	room matrixrtc.SFURoom
	at   time.Time
}

func newOpenings() *openings {
	return &openings{known: map[id.UserID]*list.Element{}, recent: list.New()}
}

// take counts that a user has a room made, once for each room within window.
// It returns zero, or how long to wait.
func (o *openings) take(user id.UserID, room matrixrtc.SFURoom, window time.Duration) time.Duration {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	u := o.opener(user)
	for len(u.rooms) > 0 && now.Sub(u.rooms[0].at) >= window {
		u.rooms = u.rooms[1:]
	}
	for _, opened := range u.rooms {
		if opened.room == room {
			return 0
		}
	}
	if len(u.rooms) >= maxOpenings {
		return window - now.Sub(u.rooms[0].at)
	}
	u.rooms = append(u.rooms, opening{room, now})
	return 0
}

func (o *openings) opener(user id.UserID) *opener {
	if element, ok := o.known[user]; ok {
		o.recent.MoveToFront(element)
		return element.Value.(*opener)
	}
	if len(o.known) >= maxOpeners {
		oldest := o.recent.Back()
		delete(o.known, o.recent.Remove(oldest).(*opener).user)
	}
	u := &opener{user: user}
	o.known[user] = o.recent.PushFront(u)
	return u
}

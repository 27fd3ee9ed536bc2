package focus

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
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
	mu sync.Mutex
	// known forgets who opened longest ago.
	known *simplelru.LRU[id.UserID, *opener]
}

type opener struct {
	rooms []opening // as they were opened, none twice
}

type opening struct {
	room matrixrtc.SFURoom
	at   time.Time
}

func newOpenings() *openings {
	known, err := simplelru.NewLRU[id.UserID, *opener](maxOpeners, nil)
	if err != nil {
		panic(err) // for a size below 1
	}
	return &openings{known: known}
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
	u, ok := o.known.Get(user)
	if !ok {
		u = &opener{}
		o.known.Add(user, u)
	}
	return u
}

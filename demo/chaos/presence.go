package chaos

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/twitchtv/twirp"

	"passerelle/demo/town"
)

// askEvery is how often the SFU is asked who is there, and so how exact
// presence is.
const askEvery = 50 * time.Millisecond

// presence knows since when which participant was at the SFU, from the SFU
// itself: what Passerelle makes of it is what is tested.
type presence struct {
	mu    sync.Mutex
	rooms map[string]bool
	spans map[string][]span // by identity
}

// span is a time without a break in which an identity was at the SFU; to is
// zero while it lasts.
type span struct{ from, to time.Time }

func newPresence() *presence {
	return &presence{rooms: map[string]bool{}, spans: map[string][]span{}}
}

// watch makes sure that a room is asked about.
func (p *presence) watch(room string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rooms[room] = true
}

// follow asks until ctx is done.
func (p *presence) follow(ctx context.Context, sfu town.SFU) {
	service := lksdk.NewRoomServiceClient(sfu.URL, sfu.Key, sfu.Secret)
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		p.mu.Lock()
		var rooms []string
		for room := range p.rooms {
			rooms = append(rooms, room)
		}
		p.mu.Unlock()
		// An SFU that does not answer says nothing of who is there.
		if there, err := list(ctx, service, rooms); err == nil {
			p.note(time.Now(), there)
		}
	}
}

// list returns the identities that are in the rooms.
func list(ctx context.Context, service *lksdk.RoomServiceClient, rooms []string) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	there := map[string]bool{}
	for _, room := range rooms {
		answer, err := service.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: room})
		var failure twirp.Error
		if err != nil && !(errors.As(err, &failure) && failure.Code() == twirp.NotFound) {
			return nil, err
		}
		for _, participant := range answer.GetParticipants() {
			if isThere(participant, time.Now()) {
				there[participant.Identity] = true
			}
		}
	}
	return there, nil
}

// joinsWithin is how long a connection may take to become active. LiveKit's
// list may keep for ever what ended in the moment it was put in.
const joinsWithin = 25 * time.Second

func isThere(p *livekit.ParticipantInfo, now time.Time) bool {
	return p.State == livekit.ParticipantInfo_ACTIVE ||
		p.State != livekit.ParticipantInfo_DISCONNECTED && now.Sub(time.Unix(p.JoinedAt, 0)) < joinsWithin
}

func (p *presence) note(now time.Time, there map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for identity := range there {
		spans := p.spans[identity]
		if len(spans) == 0 || !spans[len(spans)-1].to.IsZero() {
			p.spans[identity] = append(spans, span{from: now})
		}
	}
	for identity, spans := range p.spans {
		if last := &spans[len(spans)-1]; last.to.IsZero() && !there[identity] {
			last.to = now
		}
	}
}

// at says whether the identity was there at that time, and else when it was last
// seen to leave before: zero if it had never been there.
func (p *presence) at(identity string, at time.Time) (there bool, left time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.spans[identity] {
		if !s.from.After(at) && (s.to.IsZero() || s.to.After(at)) {
			return true, time.Time{}
		}
		if !s.to.IsZero() && !s.to.After(at) {
			left = s.to
		}
	}
	return false, left
}

package synapse

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// The events that say who is in a call: state (MSC3401), or sticky (MSC4143
// with MSC4354).
const (
	callMember = "org.matrix.msc3401.call.member"
	rtcMember  = "org.matrix.msc4143.rtc.member"
)

// Change is a user who came into the call or left it, as one server saw it.
type Change struct {
	At     time.Time
	User   id.UserID
	Joined bool
}

// WatchCall reports, as seen by the user's own server, who is in the call of
// the room, until ctx is done. It reports what is so already when it starts.
func (u *User) WatchCall(ctx context.Context, room id.RoomID, report func(Change)) error {
	in := map[string]bool{}
	since := ""
	for ctx.Err() == nil {
		answer, err := u.FullSyncRequest(ctx, mautrix.ReqSync{Timeout: 10_000, Since: since, SetPresence: event.PresenceOffline})
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("follow the room on %s: %w", displayedServer(u.UserID), err)
		}
		since = answer.NextBatch
		joined, ok := answer.Rooms.Join[room]
		if !ok {
			continue
		}
		for _, events := range [][]*event.Event{joined.State.Events, joined.Sticky.Events, joined.Timeline.Events} {
			for _, e := range events {
				key, present, ok := callEvent(e)
				if ok && in[key] != present {
					in[key] = present
					report(Change{At: time.Now(), User: e.Sender, Joined: present})
				}
			}
		}
	}
	return nil
}

// callEvent reads whether an event says that somebody is in the call, and the
// key under which that same somebody will say that they left.
func callEvent(e *event.Event) (key string, present, ok bool) {
	var content map[string]json.RawMessage
	if err := json.Unmarshal(e.Content.VeryRaw, &content); err != nil {
		return "", false, false
	}
	switch e.Type.Type {
	case callMember:
		return e.Type.Type + e.GetStateKey(), len(content) > 0, e.StateKey != nil
	case rtcMember:
		sticky := string(content["msc4354_sticky_key"])
		return e.Type.Type + string(e.Sender) + sticky, content["slot_id"] != nil, sticky != ""
	}
	return "", false, false
}

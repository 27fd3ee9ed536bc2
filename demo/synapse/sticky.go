package synapse

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// stickyFor is how long servers hand a sticky event to whoever comes later: the
// longest that there is (MSC4354).
const stickyFor = time.Hour

// EnterStickyCall says with a sticky event that the member is in the room's
// call, over that focus. The same event is never taken for one before it, so
// each that is sent counts.
func (u *User) EnterStickyCall(ctx context.Context, room id.RoomID, member, device, focus string) error {
	_, err := u.MakeRequest(ctx, http.MethodPut, u.stickyURL(room, nil), map[string]any{
		"msc4354_sticky_key": member, "slot_id": "m.call#ROOM", "application": map[string]any{"type": "m.call"},
		"member":         map[string]any{"id": member, "claimed_user_id": u.UserID, "claimed_device_id": device},
		"rtc_transports": []any{map[string]any{"type": "livekit", "livekit_service_url": focus}},
	}, nil)
	return err
}

// LeaveStickyCall says that the member has left the call.
func (u *User) LeaveStickyCall(ctx context.Context, room id.RoomID, member string) error {
	_, err := u.MakeRequest(ctx, http.MethodPut, u.stickyURL(room, nil), stickyLeave(member), nil)
	return err
}

// DelayStickyLeave has the homeserver say after the delay that the member has
// left (MSC4140), unless it is told otherwise.
func (u *User) DelayStickyLeave(ctx context.Context, room id.RoomID, member string, delay time.Duration) (delayID string, err error) {
	more := map[string]string{"org.matrix.msc4140.delay": strconv.FormatInt(delay.Milliseconds(), 10)}
	return u.delay(ctx, u.stickyURL(room, more), stickyLeave(member))
}

func stickyLeave(member string) any {
	return map[string]any{"msc4354_sticky_key": member}
}

func (u *User) stickyURL(room id.RoomID, query map[string]string) string {
	if query == nil {
		query = map[string]string{}
	}
	query["org.matrix.msc4354.sticky_duration_ms"] = strconv.FormatInt(stickyFor.Milliseconds(), 10)
	return u.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", room, "send", rtcMember, u.TxnID()}, query)
}

func (e *wireMembership) sticky(room id.RoomID) (Membership, bool) {
	var key string
	if err := json.Unmarshal(e.Content["msc4354_sticky_key"], &key); err != nil || key == "" {
		return Membership{}, false
	}
	return Membership{
		Room: room, StateKey: key, EventID: e.EventID,
		Joined: e.Content["slot_id"] != nil, Sent: time.UnixMilli(e.Sent),
	}, true
}

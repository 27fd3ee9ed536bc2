package synapse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// Membership is one event that says that a device is in a call, or was, as a
// homeserver has it.
type Membership struct {
	Room id.RoomID
	// StateKey is that of a state event (MSC3401); of a sticky event (MSC4143
	// with MSC4354) it is the sticky key.
	StateKey string
	EventID  id.EventID
	// Joined is false for an event that says that the device has left.
	Joined bool
	// Sent is the time that the sender's homeserver gave the event.
	Sent time.Time
}

// StateKey is that of a device's membership in a room's call.
func (u *User) StateKey(device string) string {
	return "_" + u.UserID.String() + "_" + device + "_m.call"
}

// OpenIDToken is what a focus asks for: the proof of who the user is.
func (u *User) OpenIDToken(ctx context.Context) (token json.RawMessage, err error) {
	address := u.BuildClientURL("v3", "user", u.UserID, "openid", "request_token")
	_, err = u.MakeRequest(ctx, http.MethodPost, address, struct{}{}, &token)
	return token, err
}

// DelayLeave has the homeserver say after the delay that the device has left
// (MSC4140), unless it is told otherwise.
func (u *User) DelayLeave(ctx context.Context, room id.RoomID, device string, delay time.Duration) (delayID string, err error) {
	address := u.BuildURLWithQuery(
		mautrix.ClientURLPath{"v3", "rooms", room, "state", callMember, u.StateKey(device)},
		map[string]string{"org.matrix.msc4140.delay": strconv.FormatInt(delay.Milliseconds(), 10)})
	return u.delay(ctx, address, struct{}{})
}

// delay puts an event where it is kept until its delay is over.
func (u *User) delay(ctx context.Context, address string, content any) (delayID string, err error) {
	var answer struct {
		DelayID string `json:"delay_id"`
	}
	if _, err := u.MakeRequest(ctx, http.MethodPut, address, content, &answer); err != nil {
		return "", err
	}
	if answer.DelayID == "" {
		return "", errors.New("the homeserver has sent the leave at once")
	}
	return answer.DelayID, nil
}

// SendDelayed has a delayed event sent now, as a client does that leaves.
func (u *User) SendDelayed(ctx context.Context, delayID string) error {
	return u.manageDelayed(ctx, delayID, "send")
}

// CancelDelayed has a delayed event never sent.
func (u *User) CancelDelayed(ctx context.Context, delayID string) error {
	return u.manageDelayed(ctx, delayID, "cancel")
}

func (u *User) manageDelayed(ctx context.Context, delayID, action string) error {
	address := u.BuildClientURL("unstable", "org.matrix.msc4140", "delayed_events", delayID, action)
	_, err := u.MakeRequest(ctx, http.MethodPost, address, struct{}{}, nil)
	return err
}

// Delayed lists the state keys of the user's delayed events that are still to
// come, by their IDs.
func (u *User) Delayed(ctx context.Context) (map[string]string, error) {
	var answer struct {
		Scheduled []struct {
			DelayID  string `json:"delay_id"`
			StateKey string `json:"state_key"`
		} `json:"delayed_events"`
	}
	_, err := u.MakeRequest(ctx, http.MethodGet, u.BuildClientURL("unstable", "org.matrix.msc4140", "delayed_events"), nil, &answer)
	keys := map[string]string{}
	for _, event := range answer.Scheduled {
		keys[event.DelayID] = event.StateKey
	}
	return keys, err
}

// EnterCall says that the device is in the room's call, over that focus.
func (u *User) EnterCall(ctx context.Context, room id.RoomID, device, focus string) error {
	content := map[string]any{
		"application": "m.call", "call_id": "", "scope": "m.room",
		"device_id": device, "membershipID": u.UserID.String() + ":" + device,
		"expires": 4 * time.Hour.Milliseconds(), "m.call.intent": "audio",
		// Else a homeserver would take the second of two for the first.
		"created_ts":   time.Now().UnixMilli(),
		"focus_active": map[string]any{"type": "livekit", "focus_selection": "multi_sfu"},
		"foci_preferred": []any{map[string]any{
			"type": "livekit", "livekit_service_url": focus, "livekit_alias": room,
		}},
	}
	address := u.BuildClientURL("v3", "rooms", room, "state", callMember, u.StateKey(device))
	_, err := u.MakeRequest(ctx, http.MethodPut, address, content, nil)
	return err
}

// LeaveCall says that the device has left the room's call.
func (u *User) LeaveCall(ctx context.Context, room id.RoomID, device string) error {
	address := u.BuildClientURL("v3", "rooms", room, "state", callMember, u.StateKey(device))
	_, err := u.MakeRequest(ctx, http.MethodPut, address, struct{}{}, nil)
	return err
}

// wireMembership is a membership as homeservers send it.
type wireMembership struct {
	Type     string                     `json:"type"`
	StateKey *string                    `json:"state_key"`
	EventID  id.EventID                 `json:"event_id"`
	Sent     int64                      `json:"origin_server_ts"`
	Content  map[string]json.RawMessage `json:"content"`
}

func (e *wireMembership) in(room id.RoomID) (Membership, bool) {
	if e.Type == rtcMember {
		return e.sticky(room)
	}
	if e.Type != callMember || e.StateKey == nil {
		return Membership{}, false
	}
	return Membership{
		Room: room, StateKey: *e.StateKey, EventID: e.EventID,
		Joined: len(e.Content) > 0, Sent: time.UnixMilli(e.Sent),
	}, true
}

// Memberships are those of the room's state now.
func (u *User) Memberships(ctx context.Context, room id.RoomID) (memberships []Membership, err error) {
	var events []wireMembership
	if _, err := u.MakeRequest(ctx, http.MethodGet, u.BuildClientURL("v3", "rooms", room, "state"), nil, &events); err != nil {
		return nil, fmt.Errorf("read the state of the room: %w", err)
	}
	for _, e := range events {
		if m, ok := e.in(room); ok {
			memberships = append(memberships, m)
		}
	}
	return memberships, nil
}

// MembershipHistory is every membership event of the room, oldest first.
func (u *User) MembershipHistory(ctx context.Context, room id.RoomID) (history []Membership, err error) {
	for from := ""; ; {
		query := map[string]string{"dir": "f", "limit": "500", "filter": `{"types":["` + callMember + `","` + rtcMember + `"]}`}
		if from != "" {
			query["from"] = from
		}
		var page struct {
			Events []wireMembership `json:"chunk"`
			End    string           `json:"end"`
		}
		address := u.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", room, "messages"}, query)
		if _, err := u.MakeRequest(ctx, http.MethodGet, address, nil, &page); err != nil {
			return nil, fmt.Errorf("read the history of the room: %w", err)
		}
		for _, e := range page.Events {
			if m, ok := e.in(room); ok {
				history = append(history, m)
			}
		}
		if page.End == "" || page.End == from {
			return history, nil
		}
		from = page.End
	}
}

// FollowMemberships reports every membership event that comes, as the user's
// own server sees it, until ctx is done. A server that is away is asked again.
func (u *User) FollowMemberships(ctx context.Context, report func(at time.Time, m Membership)) {
	const patience = 10 * time.Second
	since, filter := "", `{"presence":{"types":[]},"account_data":{"types":[]},"room":{"ephemeral":{"types":[]},`+
		`"state":{"types":["`+callMember+`"]},"timeline":{"types":["`+callMember+`"],"limit":1000}}}`
	for ctx.Err() == nil {
		query := map[string]string{"timeout": strconv.FormatInt(patience.Milliseconds(), 10), "filter": filter}
		if since != "" {
			query["since"] = since
		}
		var answer struct {
			Next  string `json:"next_batch"`
			Rooms struct {
				Join map[id.RoomID]struct {
					Timeline struct {
						Events []wireMembership `json:"events"`
					} `json:"timeline"`
				} `json:"join"`
			} `json:"rooms"`
		}
		_, err := u.MakeRequest(ctx, http.MethodGet, u.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "sync"}, query), nil, &answer)
		if err != nil {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		since = answer.Next
		at := time.Now()
		for room, joined := range answer.Rooms.Join {
			for _, e := range joined.Timeline.Events {
				if m, ok := e.in(room); ok {
					report(at, m)
				}
			}
		}
	}
}

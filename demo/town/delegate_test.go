package town_test

import (
	"net/http"
	"testing"
	"time"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// leaveDelay is more than the least that Passerelle counts with.
const leaveDelay = 20 * time.Second

// handOver says that the user is in the call, and hands their leave over
// through their homeserver (MSC4195).
func handOver(t *testing.T, w *town.Town, user *synapse.User, path string, more map[string]any) {
	t.Helper()
	require.NoError(t, user.EnterCall(t.Context(), w.Room, user.DeviceID.String(), w.Interieur.PublicURL))
	event, err := user.DelayLeave(t.Context(), w.Room, user.DeviceID.String(), leaveDelay)
	require.NoError(t, err)
	body := map[string]any{"url": sfu(w.Interieur), "room_id": w.Room, "slot_id": slot,
		"delay_id": event, "delay_timeout": leaveDelay.Milliseconds()}
	for key, value := range more {
		body[key] = value
	}
	got := post(t, w.Interieur.Homeserver.ClientURL+path, user.AccessToken, body)
	require.Equal(t, http.StatusOK, got.Status, got.Body)
	require.Equal(t, "{}", got.Body)
}

// left counts how often it was said that the user left the call.
func left(t *testing.T, w *town.Town, user *synapse.User) (n int) {
	t.Helper()
	history, err := w.Interieur.User.MembershipHistory(t.Context(), w.Room)
	require.NoError(t, err)
	for _, m := range history {
		if m.StateKey == user.StateKey(user.DeviceID.String()) && !m.Joined {
			n++
		}
	}
	return n
}

// TestHandedOverLeave: a leave that was handed over through the homeserver is
// put off while its participant is there, and sent once when it is gone, or has
// never come.
func TestHandedOverLeave(t *testing.T) {
	w, _ := newTown(t)
	const now, v1 = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave",
		"/_matrix/client/v1/rtc/livekit/delegate_delayed_leave"
	newer, older, absent := account(t, w.Interieur, "newer"), account(t, w.Interieur, "older"), account(t, w.Interieur, "absent")
	s := &scene{t, w, w.Room}
	var connections []*lksdk.Room
	for i, user := range []*synapse.User{newer, older, absent} {
		s.join(user)
		if user == absent {
			continue
		}
		jwt := ways()[2+i].ask(t, w, user, w.Room).jwt(t)
		room, err := lksdk.ConnectToRoomWithToken(sfu(w.Interieur), jwt, &lksdk.RoomCallback{})
		require.NoError(t, err)
		t.Cleanup(room.Disconnect)
		connections = append(connections, room)
	}
	handOver(t, w, newer, now, map[string]any{"member_id": "m"})
	handOver(t, w, older, v1, map[string]any{"member": map[string]any{"id": "m2", "claimed_device_id": older.DeviceID}})
	handOver(t, w, absent, now, map[string]any{"member_id": "m"})

	const longer = leaveDelay + 5*time.Second
	require.Never(t, func() bool { return left(t, w, newer)+left(t, w, older) > 0 }, longer, time.Second, "put off while its participant is there")
	require.Equal(t, 1, left(t, w, absent), "never connected")

	began := time.Now()
	for _, room := range connections {
		room.Disconnect()
	}
	require.Eventually(t, func() bool { return left(t, w, newer) > 0 && left(t, w, older) > 0 }, leaveDelay/3, 50*time.Millisecond)
	t.Logf("sent within %s", time.Since(began).Round(time.Millisecond))
	for _, user := range []*synapse.User{newer, older, absent} {
		require.Equal(t, 1, left(t, w, user))
	}
	require.Never(t, func() bool { return left(t, w, newer)+left(t, w, older)+left(t, w, absent) > 3 }, longer, time.Second, "once each")
}

package town_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// deed is something that a user may do and that a service might do in their
// name.
type deed struct {
	method, path string
	body         any
}

// meddles tells a deed that is somebody's matter also of who acts in another
// name than theirs. That a homeserver takes delayed events for any room, and
// drops those that it may not send, is no such deed.
func (d deed) meddles() bool {
	return (strings.HasPrefix(d.path, "v3/rooms/") || strings.HasPrefix(d.path, "v3/join/")) && !strings.Contains(d.path, "msc4140") ||
		d.path == "v3/register" || d.path == "v3/login"
}

// empty is a body without a field.
var empty = map[string]any{}

// deeds are all by which somebody acts in Matrix: read, write, come, go, have
// devices and keys, prove who they are, and ask for a call.
func deeds(w *town.Town, user *synapse.User, room, invited id.RoomID) []deed {
	const get, post, put = http.MethodGet, http.MethodPost, http.MethodPut
	in, me := "v3/rooms/"+url.PathEscape(string(room)), url.PathEscape(string(user.UserID))
	text := map[string]any{"msgtype": "m.text", "body": "not by me"}
	return []deed{
		{get, "v3/account/whoami", nil},
		{get, "v3/sync?timeout=0", nil},
		{get, "v3/joined_rooms", nil},
		{get, in + "/state", nil},
		{get, in + "/messages?dir=b", nil},
		{get, in + "/joined_members", nil},
		{put, in + "/send/m.room.message/made", text},
		{put, in + "/send/m.room.message/sticky?org.matrix.msc4354.sticky_duration_ms=60000", text},
		{put, in + "/send/m.room.message/later?org.matrix.msc4140.delay=3600000", text},
		{get, "unstable/org.matrix.msc4140/delayed_events", nil},
		{put, in + "/state/m.room.topic/", map[string]any{"topic": "made"}},
		{put, in + "/state/org.matrix.msc3401.call.member/" + url.PathEscape(user.StateKey("MADE")), map[string]any{"application": "m.call"}},
		{post, in + "/invite", map[string]any{"user_id": w.Finances.User.UserID}},
		{post, in + "/kick", map[string]any{"user_id": w.Finances.User.UserID}},
		{post, "v3/join/" + url.PathEscape(string(invited)), empty},
		{post, "v3/createRoom", map[string]any{"preset": "private_chat"}},
		{put, "v3/profile/" + me + "/displayname", map[string]any{"displayname": "made"}},
		{put, "v3/user/" + me + "/account_data/made", map[string]any{"made": true}},
		{post, "v3/user/" + me + "/openid/request_token", empty},
		{put, "v3/sendToDevice/made/1", map[string]any{"messages": empty}},
		{post, "v3/keys/upload", empty},
		{post, "v3/keys/upload?device_id=" + user.DeviceID.String(), empty},                    // MSC3202
		{post, "v3/keys/upload?org.matrix.msc3202.device_id=" + user.DeviceID.String(), empty}, // as it was
		{put, "v3/devices/" + user.DeviceID.String(), map[string]any{"display_name": "made"}},
		{get, "v3/devices", nil},
		{post, "unstable/io.element.msc4195/rtc/livekit/get_token", map[string]any{"url": sfu(w.Interieur),
			"room_id": room, "slot_id": slot, "member_id": "m"}},
		{post, in + "/leave", empty},
		{post, "v3/logout/all", empty},
	}
}

// more are what services alone may do.
func more(user *synapse.User) []deed {
	return []deed{
		{http.MethodPut, "v3/devices/MADE", map[string]any{"display_name": "made"}}, // MSC4190
		{http.MethodPost, "v3/register", map[string]any{"type": "m.login.application_service", "username": "made", "inhibit_login": true}},
		{http.MethodPost, "v3/register", map[string]any{"type": "m.login.application_service", "username": "made"}},
		{http.MethodPost, "v3/login", map[string]any{"type": "m.login.application_service",
			"identifier": map[string]any{"type": "m.id.user", "user": user.UserID}}},
	}
}

func (d deed) done(t *testing.T, m *town.Ministry, token string, as id.UserID) answer {
	t.Helper()
	address, err := url.Parse(m.Homeserver.ClientURL + "/_matrix/client/" + d.path)
	require.NoError(t, err)
	query := address.Query()
	if as != "" {
		query.Set("user_id", string(as))
	}
	address.RawQuery = query.Encode()
	return send(t, d.method, address.String(), token, d.body)
}

// agent makes a user with a room of their own, and a room that they are
// invited to.
func agent(t *testing.T, w *town.Town, localpart string) (user *synapse.User, own, invited id.RoomID) {
	t.Helper()
	user = account(t, w.Interieur, localpart)
	own, err := user.CreateCallRoom(t.Context(), "Own", false)
	require.NoError(t, err)
	invited, err = w.Interieur.User.CreateCallRoom(t.Context(), "Invited", false, user.UserID)
	require.NoError(t, err)
	return user, own, invited
}

// whoami is the place in all of what no deed changes but the last.
const whoami = 4

// all is what a user finds of their own: everything that a deed changes.
func all(t *testing.T, m *town.Ministry, user *synapse.User, room id.RoomID) (found []string) {
	t.Helper()
	me := url.PathEscape(string(user.UserID))
	for _, path := range []string{
		"v3/rooms/" + url.PathEscape(string(room)) + "/messages?dir=b&limit=1000", "v3/joined_rooms", "v3/profile/" + me,
		"unstable/org.matrix.msc4140/delayed_events", "v3/account/whoami",
	} {
		got := send(t, http.MethodGet, m.Homeserver.ClientURL+"/_matrix/client/"+path, user.AccessToken, nil)
		require.Equal(t, http.StatusOK, got.Status, "%s: %s", path, got.Body)
		var content map[string]any
		require.NoError(t, json.Unmarshal([]byte(got.Body), &content))
		for _, event := range asList(content["chunk"]) {
			delete(event, "unsigned") // has the event's age
			delete(event, "age")
		}
		text, err := json.Marshal(content)
		require.NoError(t, err)
		found = append(found, string(text))
	}
	var devices struct {
		Devices []struct {
			ID   string `json:"device_id"`
			Name string `json:"display_name"`
		} `json:"devices"`
	}
	got := send(t, http.MethodGet, m.Homeserver.ClientURL+"/_matrix/client/v3/devices", user.AccessToken, nil)
	require.NoError(t, json.Unmarshal([]byte(got.Body), &devices))
	return append(found, fmt.Sprint(devices))
}

func asList(value any) (list []map[string]any) {
	items, _ := value.([]any)
	for _, item := range items {
		if object, ok := item.(map[string]any); ok {
			list = append(list, object)
		}
	}
	return list
}

// TestTheRegistrationActsForNobody: with either token of the registration that
// `passerelle registration focus` writes, nobody acts as a user of the
// homeserver, or becomes one.
func TestTheRegistrationActsForNobody(t *testing.T) {
	w, _ := newTown(t)
	twin, own, invited := agent(t, w, "twin")
	for _, d := range deeds(w, twin, own, invited) {
		got := d.done(t, w.Interieur, twin.AccessToken, "")
		require.Equal(t, http.StatusOK, got.Status, "a user does it for themselves: %s %s: %s", d.method, d.path, got.Body)
	}

	user, room, elsewhere := agent(t, w, "agent")
	before := all(t, w.Interieur, user, room)
	for _, d := range slices.Concat(deeds(w, user, room, elsewhere), more(user)) {
		names := []id.UserID{user.UserID, w.Finances.User.UserID}
		if d.meddles() {
			names = append(names, "") // in its own name
		}
		for _, as := range names {
			got := d.done(t, w.Interieur, w.Interieur.ASToken, as)
			if d.path == "v3/register" {
				require.Equal(t, http.StatusBadRequest, got.Status, "%s %s", d.path, got.Body)
				require.Contains(t, got.Body, "M_EXCLUSIVE")
			} else {
				require.Equal(t, http.StatusForbidden, got.Status, "%s %s as %q: %s", d.method, d.path, as, got.Body)
				require.Contains(t, got.Body, "M_FORBIDDEN")
			}
			got = d.done(t, w.Interieur, w.Interieur.HSToken, as)
			require.Equal(t, http.StatusUnauthorized, got.Status, "%s %s: %s", d.method, d.path, got.Body)
			require.Contains(t, got.Body, "M_UNKNOWN_TOKEN")
		}
	}
	require.Equal(t, before, all(t, w.Interieur, user, room), "nothing has happened")
	got := send(t, http.MethodGet, w.Interieur.Homeserver.ClientURL+"/_matrix/client/v3/profile/"+
		url.PathEscape("@made:"+w.Interieur.ServerName()), user.AccessToken, nil)
	require.Equal(t, http.StatusNotFound, got.Status, "nobody was registered: %s", got.Body)
	mine := deeds(w, user, room, elsewhere)
	for _, d := range mine[:len(mine)-2] { // but for leaving and logging out
		got := d.done(t, w.Interieur, user.AccessToken, "")
		require.Equal(t, http.StatusOK, got.Status, "%s %s: %s", d.method, d.path, got.Body)
	}
	after := all(t, w.Interieur, user, room)
	for i := range before {
		require.True(t, i == whoami || before[i] != after[i], "and would have been seen: %s", after[i])
	}
}

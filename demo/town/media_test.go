package town_test

import (
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// client is one who calls as clients do that know their homeserver alone: what
// they know of SFUs is announced there, and they ask there for every token.
type client struct {
	home, other *town.Ministry
	user        *synapse.User
	marker      byte
}

// announced is the SFU that the client's homeserver tells its users to use
// (MSC4143).
func (c client) announced(t *testing.T) string {
	t.Helper()
	var answer struct {
		Transports []struct{ Type, URL string } `json:"rtc_transports"`
	}
	_, err := c.user.MakeRequest(t.Context(), http.MethodGet,
		c.user.BuildClientURL("unstable", "org.matrix.msc4143", "rtc", "transports"), nil, &answer)
	require.NoError(t, err)
	require.Len(t, answer.Transports, 1)
	require.Equal(t, "livekit", answer.Transports[0].Type)
	return answer.Transports[0].URL
}

// ask asks the client's homeserver for a token of the SFU at url, which is that
// of server unless it is empty.
func (c client) ask(t *testing.T, w *town.Town, generation, url, server string) answer {
	t.Helper()
	body := map[string]any{"url": url, "room_id": w.Room, "slot_id": slot}
	if server != "" {
		body["server_name"] = server
	}
	path := "/_matrix/client/v1/rtc/livekit/get_token"
	if generation == "unstable" {
		path = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token"
		body["member_id"] = "m-" + generation
	} else {
		body["member"] = map[string]any{"id": "m-" + generation, "claimed_user_id": c.user.UserID, "claimed_device_id": c.user.DeviceID}
	}
	return post(t, c.home.Homeserver.ClientURL+path, c.user.AccessToken, body)
}

// TestThroughTheHomeservers: staff of two ministries are in one call. Each gets
// every token of their own homeserver, that for the other's SFU by way of both
// homeservers; sends on their own SFU, and hears the other on the other's,
// where they can send nothing.
func TestThroughTheHomeservers(t *testing.T) {
	w, _ := newTown(t)
	both := []client{{w.Interieur, w.Finances, w.Interieur.User, 'A'}, {w.Finances, w.Interieur, w.Finances.User, 'B'}}
	for _, c := range both {
		require.Equal(t, sfu(c.home), c.announced(t))
	}
	for _, generation := range []string{"v1", "unstable"} {
		t.Run(generation, func(t *testing.T) { hearEachOther(t, w, generation, both) })
		t.Run("refusals, "+generation, func(t *testing.T) { relayedRefusals(t, w, generation, both[0]) })
	}
}

func hearEachOther(t *testing.T, w *town.Town, generation string, both []client) {
	var own, abroad []*participant
	for _, c := range both {
		// The SFU of one's own first: those of elsewhere start no call there.
		p := connect(t, c.announced(t), c.ask(t, w, generation, c.announced(t), "").jwt(t), c.marker)
		require.NoError(t, p.publish(), "%s on its own SFU", c.user.UserID)
		own = append(own, p)
	}
	for i, c := range both {
		url := both[1-i].announced(t)
		abroad = append(abroad, connect(t, url, c.ask(t, w, generation, url, c.other.Homeserver.Name).jwt(t), c.marker))
	}
	for i := range both {
		abroad[i].awaitFrames(t, both[1-i].marker, int(time.Second/frameTime))
	}
	// LiveKit's client waits ten seconds for a leave to publish, which it does
	// not get.
	var trying sync.WaitGroup
	for i, c := range both {
		trying.Go(func() {
			assert.Error(t, abroad[i].publish(), "%s on the SFU of %s", c.user.UserID, c.other.Name)
		})
	}
	trying.Wait()
	for i, c := range both {
		requireOnePublishes(t, c.other, own[1-i], abroad[i])
		abroad[i].requireHeard(t, both[1-i].marker)
		own[i].requireHeard(t)
	}
}

// requireOnePublishes: in their room the SFU of the ministry has a track of
// the one, and neither a track nor the right to one of the other.
func requireOnePublishes(t *testing.T, m *town.Ministry, one, other *participant) {
	t.Helper()
	api, err := m.SFU()
	require.NoError(t, err)
	list, err := lksdk.NewRoomServiceClient(api.URL, api.Key, api.Secret).ListParticipants(t.Context(),
		&livekit.ListParticipantsRequest{Room: one.room.Name()})
	require.NoError(t, err)
	tracks, may := map[string]int{}, map[string]bool{}
	for _, p := range list.Participants {
		tracks[p.Identity], may[p.Identity] = len(p.Tracks), p.Permission.GetCanPublish()
	}
	name, otherName := one.room.LocalParticipant.Identity(), other.room.LocalParticipant.Identity()
	require.Equal(t, map[string]int{name: 1, otherName: 0}, tracks)
	require.Equal(t, map[string]bool{name: true, otherName: false}, may)
}

// relayedRefusals: what the other service refuses comes back through both
// homeservers as it said it, and who is not in the room gets nothing anywhere.
func relayedRefusals(t *testing.T, w *town.Town, generation string, c client) {
	own, other, server := sfu(c.home), sfu(c.other), c.other.Homeserver.Name
	refused := func(by client, url, server string, status int, code string) {
		t.Helper()
		got := by.ask(t, w, generation, url, server)
		require.Equal(t, status, got.Status, got.Body)
		var refusal struct{ Errcode, Error string }
		require.NoError(t, json.Unmarshal([]byte(got.Body), &refusal), got.Body)
		require.Equal(t, code, refusal.Errcode, got.Body)
		require.NotEmpty(t, refusal.Error)
	}
	refused(c, own, server, http.StatusBadRequest, "M_INVALID_PARAM")
	refused(c, "wss://elsewhere.example", server, http.StatusBadRequest, "M_INVALID_PARAM")
	refused(c, other, "", http.StatusBadRequest, "M_INVALID_PARAM")
	refused(c, other, "elsewhere.example", http.StatusBadRequest, "M_INVALID_PARAM")
	stranger := c
	stranger.user = member(t, c.home, "stranger-"+generation)
	refused(stranger, own, "", http.StatusForbidden, "M_FORBIDDEN")
	refused(stranger, other, server, http.StatusForbidden, "M_FORBIDDEN")
}

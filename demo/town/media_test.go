package town_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"

	"passerelle/demo/member"
	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

const (
	// speech is as many frames as make sure that sound passes, of frameTime each.
	speech    = 100
	frameTime = 20 * time.Millisecond
)

// participant is one connection to an SFU.
type participant struct {
	room *lksdk.Room
	ear  member.Ear

	mu   sync.Mutex
	read []string // what others sent beside sound
}

// enter connects to the SFU of a ministry until the test's end.
func enter(t *testing.T, m *town.Ministry, jwt string) *participant {
	t.Helper()
	p := &participant{}
	var err error
	p.room, err = lksdk.ConnectToRoomWithToken(sfu(m), jwt, &lksdk.RoomCallback{ParticipantCallback: lksdk.ParticipantCallback{
		OnTrackSubscribed: p.ear.Listen,
		OnDataPacket: func(data lksdk.DataPacket, _ lksdk.DataReceiveParams) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.read = append(p.read, string(data.(*lksdk.UserDataPacket).Payload))
		},
	}})
	require.NoError(t, err)
	t.Cleanup(p.room.Disconnect)
	return p
}

func (p *participant) identity() string { return p.room.LocalParticipant.Identity() }

func (p *participant) write(text string) error {
	return p.room.LocalParticipant.PublishDataPacket(lksdk.UserData([]byte(text)), lksdk.WithDataPublishReliable(true))
}

func (p *participant) hasRead() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.read...)
}

// speaks has it say something until the test's end.
func (p *participant) speaks(t *testing.T) {
	t.Helper()
	voice, err := member.Speak(p.room, frameTime)
	require.NoError(t, err)
	t.Cleanup(voice.Stop)
}

// rooms asks a ministry's SFU itself.
func rooms(t *testing.T, m *town.Ministry) *lksdk.RoomServiceClient {
	t.Helper()
	at, err := m.SFU()
	require.NoError(t, err)
	return lksdk.NewRoomServiceClient(at.URL, at.Key, at.Secret)
}

func roomNames(t *testing.T, m *town.Ministry) (names []string) {
	t.Helper()
	list, err := rooms(t, m).ListRooms(t.Context(), &livekit.ListRoomsRequest{})
	require.NoError(t, err)
	for _, room := range list.Rooms {
		names = append(names, room.Name)
	}
	return names
}

// caller is a member of staff with their own connection and the one to the
// other ministry's SFU.
type caller struct {
	home, away *town.Ministry
	user       *synapse.User
	at, abroad *participant
}

// form is how clients ask: where, and whether as those of before August 2026.
type form struct {
	path  string
	older bool
}

// ask asks the caller's own homeserver for a token for the SFU at url, of
// another server unless server is empty.
func (c *caller) ask(t *testing.T, w *town.Town, f form, slot, url, server string) answer {
	t.Helper()
	body := map[string]any{"url": url, "room_id": w.Room, "slot_id": slot, "member_id": "m"}
	if f.older {
		delete(body, "member_id")
		body["member"] = map[string]any{"id": "m", "claimed_user_id": c.user.UserID, "claimed_device_id": c.user.DeviceID}
	}
	if server != "" {
		body["server_name"] = server
	}
	return post(t, c.home.Homeserver.ClientURL+f.path, c.user.AccessToken, body)
}

// token is one for the SFU of either ministry.
func (c *caller) token(t *testing.T, w *town.Town, f form, slot string, of *town.Ministry) string {
	t.Helper()
	server := ""
	if of != c.home {
		server = of.Homeserver.Name
	}
	return c.ask(t, w, f, slot, sfu(of), server).jwt(t)
}

// announced are the SFUs that the caller's homeserver tells of (MSC4143), from
// which all clients know where to speak.
func (c *caller) announced(t *testing.T) (urls []string) {
	t.Helper()
	var answer struct {
		Transports []struct{ URL string } `json:"rtc_transports"`
	}
	_, err := c.user.MakeRequest(t.Context(), http.MethodGet,
		c.user.BuildClientURL("unstable", "org.matrix.msc4143", "rtc", "transports"), nil, &answer)
	require.NoError(t, err)
	for _, transport := range answer.Transports {
		urls = append(urls, transport.URL)
	}
	return urls
}

// requireRelayedRefusals: what the other service says of an SFU that it does not
// have comes back through both homeservers, with its status and code.
func requireRelayedRefusals(t *testing.T, w *town.Town, f form, c *caller) {
	t.Helper()
	for _, url := range []string{sfu(c.home), "wss://elsewhere.example"} {
		got := c.ask(t, w, f, slot, url, c.away.Homeserver.Name)
		require.Equal(t, http.StatusBadRequest, got.Status, got.Body)
		require.JSONEq(t, `{"errcode":"M_INVALID_PARAM","error":"url is not the address of a media server of this service"}`, got.Body)
	}
}

// TestMediaBothWays: a member of staff of either ministry asks nobody but their
// own homeserver, for their own SFU and for the other's, speaks on their own
// and hears the other on the other's. On the other's SFU nobody but its own
// users starts a call, or sends anything.
func TestMediaBothWays(t *testing.T) {
	w, _ := newTown(t)
	for name, f := range map[string]form{"unstable": {clientNow, false}, "v1": {clientV1, false}, "older": {clientV1, true}} {
		t.Run(name, func(t *testing.T) {
			slot := "m.call#" + name // a call of its own
			agnes := &caller{home: w.Interieur, away: w.Finances, user: w.Interieur.User}
			bruno := &caller{home: w.Finances, away: w.Interieur, user: w.Finances.User}
			for _, c := range []*caller{agnes, bruno} {
				require.Equal(t, []string{sfu(c.home)}, c.announced(t))
				requireRelayedRefusals(t, w, f, c)
				before := roomNames(t, c.away)
				abroad := c.token(t, w, f, slot, c.away)
				requireLeast(t, abroad, false)
				_, err := lksdk.ConnectToRoomWithToken(sfu(c.away), abroad, &lksdk.RoomCallback{})
				require.Error(t, err, "who is of another server starts no call")
				require.ElementsMatch(t, before, roomNames(t, c.away))
			}
			for _, c := range []*caller{agnes, bruno} {
				own := c.token(t, w, f, slot, c.home)
				requireLeast(t, own, true)
				c.at = enter(t, c.home, own)
				c.at.speaks(t)
			}
			for _, c := range []*caller{agnes, bruno} {
				c.abroad = enter(t, c.away, c.token(t, w, f, slot, c.away))
			}
			require.Equal(t, agnes.at.identity(), agnes.abroad.identity(), "one member, on whichever SFU")
			requireHeard(t, agnes.abroad, bruno.at)
			requireHeard(t, bruno.abroad, agnes.at)
			requireSilent(t, agnes, bruno)
			t.Logf("Agnès heard %v, Bruno %v", agnes.abroad.ear.Heard(), bruno.abroad.ear.Heard())
		})
	}
}

// requireHeard waits until the listener has heard the speaker, and nobody and
// nothing else.
func requireHeard(t *testing.T, listener, speaker *participant) {
	t.Helper()
	require.Eventually(t, func() bool { return listener.ear.Heard()[speaker.identity()] >= speech }, time.Minute, 50*time.Millisecond,
		"heard: %v", listener.ear.Heard())
	require.Len(t, listener.ear.Heard(), 1)
	require.Zero(t, listener.ear.Wrong(), "it is what was said")
}

// requireSilent: whoever is on the other's SFU cannot send there, neither sound
// nor text, while those at home can.
func requireSilent(t *testing.T, callers ...*caller) {
	t.Helper()
	var trying sync.WaitGroup
	refusals := make([]error, len(callers))
	for i, c := range callers {
		trying.Go(func() {
			_ = c.abroad.write("from abroad") // may be refused here already
			_ = c.at.write("from home")
			// Takes ten seconds, in which all that was sent would come.
			_, refusals[i] = member.Speak(c.abroad.room, frameTime)
		})
	}
	trying.Wait()
	require.Len(t, callers, 2)
	for i, c := range callers {
		require.ErrorIs(t, refusals[i], lksdk.ErrTrackPublishTimeout, "nothing is published")
		other := callers[1-i]
		require.Eventually(t, func() bool { return len(other.abroad.hasRead()) > 0 }, 20*time.Second, 50*time.Millisecond)
		require.Equal(t, []string{"from home"}, other.abroad.hasRead())
		require.Empty(t, c.at.hasRead(), "nothing comes from abroad")
		require.Empty(t, c.at.ear.Heard())
		there, err := rooms(t, c.away).GetParticipant(t.Context(), &livekit.RoomParticipantIdentity{Room: c.abroad.room.Name(), Identity: c.abroad.identity()})
		require.NoError(t, err)
		require.Empty(t, there.Tracks)
		require.False(t, there.Permission.CanPublish || there.Permission.CanPublishData || there.Permission.CanUpdateMetadata)
		require.True(t, there.Permission.CanSubscribe)
		here, err := rooms(t, c.home).GetParticipant(t.Context(), &livekit.RoomParticipantIdentity{Room: c.at.room.Name(), Identity: c.at.identity()})
		require.NoError(t, err)
		require.Len(t, here.Tracks, 1)
	}
}

// requireLeast: a token lets into one room and, of who is at home, sounds and
// texts out of it; it holds nothing else.
func requireLeast(t *testing.T, jwt string, atHome bool) {
	t.Helper()
	_, rest, _ := strings.Cut(jwt, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	require.NoError(t, err)
	var claims struct {
		Expires   int64          `json:"exp"`
		NotBefore int64          `json:"nbf"`
		Video     map[string]any `json:"video"`
	}
	require.NoError(t, json.Unmarshal(text, &claims))
	require.Positive(t, claims.NotBefore)
	require.LessOrEqual(t, time.Until(time.Unix(claims.Expires, 0)), time.Hour)
	require.Len(t, claims.Video["room"], 43)
	delete(claims.Video, "room")
	delete(claims.Video, "destinationRoom") // the term
	require.Equal(t, map[string]any{"roomJoin": true, "canSubscribe": true,
		"canPublish": atHome, "canPublishData": atHome, "canUpdateOwnMetadata": false}, claims.Video)
}

package town_test

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"

	"passerelle/demo/intruder"
	"passerelle/demo/synapse"
	"passerelle/demo/timing"
	"passerelle/demo/town"
)

const (
	// fewKicks are enough to see that it is so. With PASSERELLE_SOAK there are
	// manyKicks, of which the slowest tells something.
	fewKicks, manyKicks = 6, 60
	// inOneRoom are as many of those who will be kicked as share a call.
	inOneRoom = 10
	// kickPause is a fraction of the pause between two sweeps that lets kicks
	// fall into each part of it.
	kickPause = 370 * time.Millisecond
	// outWithin is what the sweep, each five seconds, must keep to.
	outWithin = 6 * time.Second
)

// kicked is somebody who is in a call and will be thrown out of the room.
type kicked struct {
	*scene
	user   *synapse.User
	way    way // by which their tokens came
	tokens map[string]string
	gone   chan lksdk.DisconnectionReason
	ended  chan time.Time
}

// kicks is how many there are to be.
func kicks() int {
	if os.Getenv("PASSERELLE_SOAK") != "" {
		return manyKicks
	}
	return fewKicks
}

// inCall has the nth person in a call: of either ministry, with a token that
// came by one of the routes for it and then with the one that LiveKit made.
func inCall(t *testing.T, s *scene, n int) *kicked {
	t.Helper()
	m, routes := s.town.Interieur, []int{0, 1, 2, 3}
	if n%2 == 1 {
		m, routes = s.town.Finances, []int{0, 1, 4}
	}
	k := &kicked{scene: s, user: account(t, m, fmt.Sprintf("kicked%d", n)), way: ways()[routes[n/2%len(routes)]],
		gone: make(chan lksdk.DisconnectionReason, 1), ended: make(chan time.Time, 1)}
	s.join(k.user)
	original := k.way.ask(t, s.town, k.user, s.room).jwt(t)
	first, err := intruder.Connect(t.Context(), s.town.Interieur.PublicURL, original)
	require.NoError(t, err)
	k.tokens = map[string]string{"the original": original, "LiveKit's": first.Refreshed}
	first.Close()
	room, err := lksdk.ConnectToRoomWithToken(sfu(s.town.Interieur), first.Refreshed, &lksdk.RoomCallback{
		OnDisconnectedWithReason: func(reason lksdk.DisconnectionReason) {
			k.ended <- time.Now()
			k.gone <- reason
		},
	})
	require.NoError(t, err)
	t.Cleanup(room.Disconnect)
	return k
}

// TestKickedOutOfTheCall: whoever is thrown out of a room, with nobody but the
// sweep to notice it, is out of its call soon after, and nothing that they hold
// or can ask for lets them in again; all others stay.
func TestKickedOutOfTheCall(t *testing.T) {
	count := kicks()
	w, _ := newTown(t)
	var s *scene
	var stays []<-chan struct{}
	var all []*kicked
	for n := range count {
		if n%inOneRoom == 0 {
			room, err := w.Interieur.User.CreateCallRoom(t.Context(), "Réunion", false)
			require.NoError(t, err)
			s = &scene{t, w, room}
			stays = append(stays, connected(t, w.Interieur, w.Interieur.User, room))
		}
		all = append(all, inCall(t, s, n))
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, way := range intruder.Ways()[5:7] {
		require.True(t, intruder.Admitted(way.Try(client, w.Interieur.PublicURL, all[0].tokens["LiveKit's"])), "before: %s", way.Name)
	}

	began := map[*kicked]time.Time{}
	for _, k := range all {
		time.Sleep(kickPause)
		began[k] = time.Now()
		k.moderate("kick")(k.scene, k.user)
	}
	var took []time.Duration
	for _, k := range all {
		select {
		case ended := <-k.ended:
			took = append(took, ended.Sub(began[k]))
			t.Logf("%s by %s: %s after %s", k.user.UserID, k.way.name, <-k.gone, took[len(took)-1].Round(time.Millisecond))
		case <-time.After(30 * time.Second):
			t.Errorf("%s is still in the call", k.user.UserID)
		}
	}
	p99 := timing.Percentile(took, 99)
	t.Logf("%d kicks: p50 %s, p99 %s, at most %s", len(took), timing.Percentile(took, 50).Round(time.Millisecond),
		p99.Round(time.Millisecond), timing.Percentile(took, 100).Round(time.Millisecond))
	if count == manyKicks {
		require.Less(t, p99, outWithin)
	}
	requireOut(t, w, client, all)
	for _, gone := range stays {
		require.Empty(t, gone, "who was not kicked stays")
	}
	require.Len(t, present(t, w.Interieur), len(stays), "and nobody else is there")
}

// requireOut tries whatever there is to get in again.
func requireOut(t *testing.T, w *town.Town, client *http.Client, all []*kicked) {
	t.Helper()
	at, err := w.Interieur.SFU()
	require.NoError(t, err)
	siege := &intruder.Siege{}
	t.Run("afterwards", func(t *testing.T) {
		for _, k := range all {
			t.Run(string(k.user.UserID), func(t *testing.T) {
				t.Parallel()
				got := k.way.ask(t, w, k.user, k.room)
				require.Equal(t, http.StatusForbidden, got.Status, got.Body)
				require.Contains(t, got.Body, "M_FORBIDDEN")
				siege.Try(client, w.Interieur.PublicURL, k.tokens)
				siege.Try(client, at.URL, map[string]string{"the original, at the SFU itself": k.tokens["the original"]})
			})
		}
	})
	t.Logf("afterwards: %s", siege)
	require.Empty(t, siege.Inside())
	require.Zero(t, siege.Unanswered())
}

// present asks the SFU itself who is in any of its rooms.
func present(t *testing.T, m *town.Ministry) (identities []string) {
	t.Helper()
	for _, name := range roomNames(t, m) {
		list, err := rooms(t, m).ListParticipants(t.Context(), &livekit.ListParticipantsRequest{Room: name})
		require.NoError(t, err)
		for _, p := range list.Participants {
			identities = append(identities, p.Identity)
		}
	}
	return identities
}

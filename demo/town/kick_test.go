package town_test

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// connected is one who is in the call; gone gets a value when the SFU or the
// door has put them out for good.
func connected(t *testing.T, w *town.Town, user *synapse.User, in id.RoomID) (gone <-chan struct{}) {
	t.Helper()
	ended := make(chan struct{}, 1)
	jwt := ways()[1].ask(t, w, user, in).jwt(t)
	room, err := lksdk.ConnectToRoomWithToken(sfu(w.Interieur), jwt, &lksdk.RoomCallback{OnDisconnected: func() { ended <- struct{}{} }})
	require.NoError(t, err)
	t.Cleanup(room.Disconnect)
	return ended
}

// TestKicked: who is thrown out of the room is out of the call, whichever
// server threw them out of it and whichever they are of; and a homeserver that
// is away, or comes back, throws nobody out.
func TestKicked(t *testing.T) {
	w, _ := newTown(t)
	s := &scene{t, w, w.Room}
	stays := connected(t, w, w.Interieur.User, w.Room)
	for _, m := range []*town.Ministry{w.Interieur, w.Finances} {
		user := account(t, m, "kicked")
		s.join(user)
		gone := connected(t, w, user, w.Room)
		began := time.Now()
		s.moderate("kick")(s, user)
		select {
		case <-gone:
			t.Logf("%s is out after %s", user.UserID, time.Since(began).Round(time.Millisecond))
		case <-time.After(30 * time.Second):
			t.Errorf("%s is still in the call", user.UserID)
		}
		require.Contains(t, ways()[1].ask(t, w, user, w.Room).Body, "M_FORBIDDEN")
	}
	remains := connected(t, w, w.Finances.User, w.Room)
	require.NoError(t, w.Interieur.Homeserver.Stop())
	awaitSweeps(t, w.Interieur, "failed")
	require.NoError(t, w.Interieur.Homeserver.Restart(t.Context()))
	awaitSweeps(t, w.Interieur, "answered")
	select {
	case <-stays:
		t.Error("Agnès was thrown out")
	case <-remains:
		t.Error("Bruno was thrown out")
	default:
	}
}

// awaitSweeps returns when the Passerelle has asked its homeserver, with that
// outcome, as often as two sweeps do for two people in a call.
func awaitSweeps(t *testing.T, m *town.Ministry, outcome string) {
	t.Helper()
	const twoSweeps = 4
	before := questions(t, m, outcome)
	require.Eventually(t, func() bool { return questions(t, m, outcome) >= before+twoSweeps }, time.Minute, 100*time.Millisecond,
		"nobody is asked")
}

// questions is how often the Passerelle asked who is in a room, by outcome.
func questions(t testing.TB, m *town.Ministry, outcome string) float64 {
	t.Helper()
	return metric(t, m, `passerelle_homeserver_questions_total{outcome="`+outcome+`",question="is_joined"}`)
}

// metric is what the Passerelle counted of that; nothing is 0.
func metric(t testing.TB, m *town.Ministry, name string) (n float64) {
	t.Helper()
	answer, err := http.Get(m.PrivateURL + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err = strconv.ParseFloat(value, 64)
			require.NoError(t, err)
		}
	}
	return n
}

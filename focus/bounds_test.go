package focus_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// bound is the policy of two servers that may start calls, within bounds.
func (w *world) bound(own, friend matrixrtc.Bounds) {
	full := matrixrtc.Access{Join: true, Create: true, Publish: everything}
	w.access["own.example"], w.access["friend.example"] = full, full
	with := w.access["own.example"]
	with.Calls = own
	w.access["own.example"] = with
	with.Calls = friend
	w.access["friend.example"] = with
}

// grantTo gives a token to a user's device and returns its ticket.
func (w *world) grantTo(t *testing.T, user id.UserID, device string) matrixrtc.Ticket {
	t.Helper()
	w.answer = user
	body := strings.NewReplacer("own.example", user.Homeserver(), `"tok"`, fmt.Sprintf("%q", string(user)+device), `"DEV"`, fmt.Sprintf("%q", device)).Replace(legacyRequest)
	status, answer := w.ask(t, "/sfu/get", body)
	require.Equal(t, http.StatusOK, status, answer)
	return w.ticket(matrixrtc.Identity(string(user) + ":" + device))
}

func (w *world) goes(t *testing.T, who matrixrtc.Identity, sid string) {
	t.Helper()
	require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "left" + sid, Type: matrixrtc.ParticipantLeft,
		Room: roomHash, Identity: who, ParticipantSID: sid, At: time.Now()}))
}

func TestAFullCall(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		now := time.Now()
		w.SetClock(func() time.Time { return now })
		w.bound(matrixrtc.Bounds{MaxParticipants: 2}, matrixrtc.Bounds{MaxParticipants: 1})
		one := w.grantTo(t, "@ana:own.example", "1")
		two := w.grantTo(t, "@bo:friend.example", "2")
		three := w.grantTo(t, "@ana:own.example", "3")
		require.NoError(t, w.admit(t, one))
		require.NoError(t, w.admit(t, one), "again, and the place is hers")
		require.NoError(t, w.admit(t, two), "the rule of who started the call counts")
		require.ErrorIs(t, w.admit(t, three), focus.ErrFull, "both are on their way")

		w.comes(t, one.Identity, "PA_1", everything)
		now = now.Add(40 * time.Second)
		require.NoError(t, w.admit(t, three), "the second has never come")
		w.comes(t, three.Identity, "PA_3", everything)
		now = now.Add(40 * time.Second)
		require.ErrorIs(t, w.admit(t, two), focus.ErrFull)
		require.NoError(t, w.admit(t, one), "who is in the call comes back to it")

		w.goes(t, three.Identity, "PA_3")
		require.NoError(t, w.admit(t, two), "a place is free")

		// The policy is another one now: who is in stays, who comes finds it so.
		w.comes(t, two.Identity, "PA_2", everything)
		w.bound(matrixrtc.Bounds{MaxParticipants: 1}, matrixrtc.Bounds{})
		require.NoError(t, w.admit(t, one))
		require.ErrorIs(t, w.admit(t, three), focus.ErrFull)
		w.bound(matrixrtc.Bounds{}, matrixrtc.Bounds{MaxParticipants: 1})
		require.NoError(t, w.admit(t, three), "no limit any more")
	})
}

// Where clients do not come through the door, the SFU is told the number.
func TestTheSFUIsToldTheNumberWithoutADoor(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, func(o *focus.Options) { o.NoDoor = true })
		w.most = 5
		w.bound(matrixrtc.Bounds{MaxParticipants: 5}, matrixrtc.Bounds{})
		require.NoError(t, w.admit(t, w.grantTo(t, "@ana:own.example", "1")))
		require.Len(t, w.ensured, 2)
	})
}

// A place that its holder had and left is free at once, not after a while.
func TestAPlaceIsFreeWhenItsHolderHasLeft(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.bound(matrixrtc.Bounds{MaxParticipants: 1}, matrixrtc.Bounds{})
		one, two := w.grantTo(t, "@ana:own.example", "1"), w.grantTo(t, "@ana:own.example", "2")
		require.NoError(t, w.admit(t, one))
		w.comes(t, one.Identity, "PA_1", everything)
		w.goes(t, one.Identity, "PA_1")
		require.NoError(t, w.admit(t, two))
		require.ErrorIs(t, w.admit(t, one), focus.ErrFull)
		_, err := w.Revoke(t.Context(), focus.Whom{SFURoom: roomHash, Identity: two.Identity}, "")
		require.NoError(t, err)
		require.NoError(t, w.admit(t, one), "and so is that of who was put out")
	})
}

// Nor is it kept for an hour when the clock is set back by one.
func TestAPlaceWhenTheClockIsSetBack(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		now := time.Now().Add(time.Hour)
		w.SetClock(func() time.Time { return now })
		w.bound(matrixrtc.Bounds{MaxParticipants: 1}, matrixrtc.Bounds{})
		one, two := w.grantTo(t, "@ana:own.example", "1"), w.grantTo(t, "@ana:own.example", "2")
		require.NoError(t, w.admit(t, one))
		require.ErrorIs(t, w.admit(t, two), focus.ErrFull)
		now = now.Add(-time.Hour)
		require.NoError(t, w.admit(t, two), "the first has never come")
	})
}

// As many connect at once as may, whichever process they ask.
func TestNoMoreGetInAtOnceThanMay(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		const all, most = 20, 7
		replicas := []*world{newWorld(t, db), newWorld(t, db)}
		var tickets []matrixrtc.Ticket
		for n := range all {
			w := replicas[0]
			w.bound(matrixrtc.Bounds{MaxParticipants: most}, matrixrtc.Bounds{})
			tickets = append(tickets, w.grantTo(t, "@ana:own.example", fmt.Sprint(n)))
		}
		replicas[1].access = replicas[0].access
		var in, full atomic.Int64
		var coming sync.WaitGroup
		for n, ticket := range tickets {
			coming.Go(func() {
				switch err := replicas[n%2].admit(t, ticket); {
				case err == nil:
					in.Add(1)
				default:
					require.ErrorIs(t, err, focus.ErrFull)
					full.Add(1)
				}
			})
		}
		coming.Wait()
		require.EqualValues(t, most, in.Load())
		require.EqualValues(t, all-most, full.Load())
	})
}

func TestTheLongestCall(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.bound(matrixrtc.Bounds{Longest: time.Hour}, matrixrtc.Bounds{})
		began := time.Now()
		now := began
		w.SetClock(func() time.Time { return now })
		one, two := w.grantTo(t, "@ana:own.example", "1"), w.grantTo(t, "@bo:friend.example", "2")
		ends := func(at time.Duration) bool {
			t.Helper()
			now = began.Add(at)
			w.ended = nil
			next, err := w.EndLongCalls(t.Context(), "")
			require.NoError(t, err)
			require.Empty(t, next)
			return len(w.ended) > 0
		}
		require.False(t, ends(2*time.Hour), "nobody has come, so there is no call")
		now = began
		w.comes(t, one.Identity, "PA_1", everything)
		require.False(t, ends(59*time.Minute))

		// The next process knows since when, and the policy of now counts.
		other := newWorld(t, db)
		other.access = w.access
		w.bound(matrixrtc.Bounds{}, matrixrtc.Bounds{Longest: time.Minute})
		require.False(t, ends(2*time.Hour), "who started it may, whoever else is there")
		w.bound(matrixrtc.Bounds{Longest: time.Hour}, matrixrtc.Bounds{})
		other.access = w.access
		w = other
		w.SetClock(func() time.Time { return now })
		require.True(t, ends(61*time.Minute))
		require.Equal(t, []matrixrtc.SFURoom{roomHash}, w.ended)
		require.ElementsMatch(t, []matrixrtc.Identity{one.Identity, two.Identity}, w.cut, "whoever has a token, connected or not")
		require.ErrorIs(t, w.admit(t, one), focus.ErrNotAdmitted)
		require.ErrorIs(t, w.admit(t, two), focus.ErrNotAdmitted)
		require.False(t, ends(62*time.Minute), "once")

		// An SFU that did not close it is asked to remove who has no grant.
		w.present = map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: {{Identity: one.Identity, SID: "PA_1", Joined: true, JoinedAt: began}}}
		_, err := w.Reconcile(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, []matrixrtc.Identity{one.Identity}, w.removed)

		// Another call, with tokens of its own.
		again := w.grantTo(t, "@ana:own.example", "1")
		require.NoError(t, w.admit(t, again))
		require.ErrorIs(t, w.admit(t, two), focus.ErrNotAdmitted)
		w.comes(t, again.Identity, "PA_4", everything)
		require.False(t, ends(59*time.Minute))
	})
}

// One call ends where nobody is there for a minute, whatever was reported of it;
// one that everybody comes back to after a fault goes on.
func TestWhenACallBegins(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		ticket := w.grantAna(t)
		began := time.Now().Truncate(time.Second)
		event := func(kind matrixrtc.SFUEventType, sid string, at time.Duration) {
			e := matrixrtc.SFUEvent{ID: fmt.Sprint(kind, sid), Type: kind, Room: roomHash, At: began.Add(at), Publish: everything}
			if sid != "" {
				e.Identity, e.ParticipantSID = ticket.Identity, sid
			}
			require.NoError(t, w.HandleSFUEvent(t.Context(), e))
		}
		started := func() time.Duration {
			calls, err := w.store.Running(t.Context(), "", 10)
			require.NoError(t, err)
			require.Len(t, calls, 1)
			return calls[0].StartedAt.Sub(began)
		}
		event(matrixrtc.ParticipantJoined, "PA_1", 0)
		require.Zero(t, started())
		event(matrixrtc.ParticipantJoined, "PA_2", 10*time.Minute)
		event(matrixrtc.ParticipantLeft, "PA_1", 11*time.Minute)
		event(matrixrtc.ParticipantJoined, "PA_3", 12*time.Minute)
		require.Zero(t, started())

		w.SetClock(func() time.Time { return began.Add(20 * time.Minute) })
		require.NoError(t, w.SFURestarted(t.Context()))
		calls, err := w.store.Running(t.Context(), "", 10)
		require.NoError(t, err)
		require.Empty(t, calls, "nobody is there")
		event(matrixrtc.ParticipantJoined, "PA_4", 20*time.Minute+15*time.Second)
		require.Zero(t, started(), "they are back")

		event(matrixrtc.ParticipantLeft, "PA_4", 30*time.Minute)
		event(matrixrtc.ParticipantJoined, "PA_5", 32*time.Minute)
		require.Equal(t, 32*time.Minute, started(), "nobody said that the one before had ended")
		event(matrixrtc.ParticipantLeft, "PA_5", 33*time.Minute)
		w.SetClock(func() time.Time { return began.Add(33 * time.Minute) })
		event(matrixrtc.RoomFinished, "", 33*time.Minute+20*time.Second)
		event(matrixrtc.ParticipantJoined, "PA_6", 33*time.Minute+30*time.Second)
		require.Equal(t, 33*time.Minute+30*time.Second, started())
	})
}

package focus_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

const anaIsIn = "!roomid:example.com @ana:own.example"

// A token that was given to a member of the room lets nobody in who is none any
// more; who is invited again may come at once.
func TestTheDoorAsksWhoIsInTheRoom(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		w.members.in = map[string]bool{anaIsIn: true}
		ticket := w.grantAna(t)
		w.members.asked = 0
		require.NoError(t, w.admit(t, ticket))
		require.Equal(t, 1, w.members.asked)

		delete(w.members.in, anaIsIn)
		require.ErrorIs(t, w.admit(t, ticket), focus.ErrNotAdmitted)
		require.Equal(t, []matrixrtc.Identity{ana}, w.cut)
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed)
		standing, err := w.store.Standing(t.Context(), roomHash, ana)
		require.NoError(t, err)
		require.True(t, standing.Revoked)

		w.members.in[anaIsIn] = true
		require.ErrorIs(t, w.admit(t, ticket), focus.ErrNotAdmitted, "the token is from before")
		require.NoError(t, w.admit(t, w.grantAna(t)))
	})
}

// A homeserver that is silent keeps nobody out who was in the room; one that
// keeps its answer to itself has given it.
func TestASilentHomeserverAtTheDoor(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		w.members.in = map[string]bool{anaIsIn: true}
		ticket := w.grantAna(t)
		w.members.in, w.members.silent = nil, errors.New("dial tcp 10.1.2.3:8008: refused")
		require.NoError(t, w.admit(t, ticket))

		is := func(statement string) {
			t.Helper()
			_, err := db.Exec(t.Context(), "UPDATE call_grant SET "+statement)
			require.NoError(t, err)
		}
		later := func(ticket matrixrtc.Ticket) {
			t.Helper()
			err := w.admit(t, ticket)
			require.ErrorIs(t, err, w.members.silent)
			require.NotErrorIs(t, err, focus.ErrNotAdmitted, "clients would not try again")
		}
		is("membership = 'unverified'")
		later(ticket)
		is("membership = 'verified', expires_at = 1")
		later(ticket)
		// The SFU makes tokens for those who are connected, for as long as they are.
		ticket.Expires = time.Now().Add(time.Minute)
		require.NoError(t, w.admit(t, ticket))
		require.Empty(t, w.cut)

		w.members.silent = fmt.Errorf("ask the homeserver: %w", kept{})
		require.NoError(t, w.admit(t, ticket), "what it keeps to itself is no no")
		require.Empty(t, w.cut)
		w.members.silent = nil
		require.ErrorIs(t, w.admit(t, ticket), focus.ErrNotAdmitted)
		require.Equal(t, []matrixrtc.Identity{ana}, w.cut)
	})
}

func TestTheDoorAsksNobodyWhereNobodyIsToBeAsked(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		require.NoError(t, w.admit(t, w.grantAna(t)))
		require.Zero(t, w.members.asked)
	})
}

// Who is connected without media is reported by nobody, and sees who is in the
// call. The sweep asks for them, too, until the SFU does not list them any more.
func TestOnlookersAreAskedFor(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		clock := time.Now()
		w.SetClock(func() time.Time { return clock })
		w.members.in = map[string]bool{anaIsIn: true}
		require.NoError(t, w.admit(t, w.grantAna(t)))
		w.present = map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: {
			{Identity: ana, SID: "PA_1", JoinedAt: clock, Publish: everything},
			{Identity: ana, SID: "PA_2", JoinedAt: clock, Publish: everything},
		}}
		w.round(t)
		require.Empty(t, participants(t, db))
		asks := func(questions int) {
			t.Helper()
			w.members.asked = 0
			w.sweep(t)
			require.Equal(t, questions, w.members.asked)
		}
		asks(1)
		asks(1)
		w.joins(t, "PA_1", ana)
		asks(1)
		w.present = nil
		for range 2 {
			clock = clock.Add(10 * time.Second)
			w.round(t)
		}
		require.Equal(t, "left", participants(t, db)["PA_1"])
		asks(0)
	})
}

func TestThrownOutWhoOnlyLooksOn(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		w.members.in = map[string]bool{anaIsIn: true}
		require.NoError(t, w.admit(t, w.grantAna(t)))
		w.present = map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: {{Identity: ana, SID: "PA_1", JoinedAt: time.Now(), Publish: everything}}}
		w.round(t)
		w.sweep(t)
		require.Empty(t, w.removed)
		delete(w.members.in, anaIsIn)
		w.sweep(t)
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed)
	})
}

// boAsks is a token for somebody who may only join calls.
func (w *world) boAsks(t *testing.T) matrixrtc.Ticket {
	t.Helper()
	w.answer, w.ensured = "@bo:friend.example", nil
	status, body := w.ask(t, "/sfu/get", strings.NewReplacer("own.example", "friend.example", `"tok"`, `"bos"`).Replace(legacyRequest))
	require.Equal(t, http.StatusOK, status, body)
	return w.ticket("@bo:friend.example:DEV")
}

// Nobody reports that the SFU has closed the room: a call in which nobody is any
// more is none for those who may only join. Everybody may come back to it for a
// while, though, as when the SFU has crashed.
func TestALostEndOfARoom(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for name, ends := range map[string]func(w *world, later func(time.Duration)){
			"the report is lost": func(w *world, later func(time.Duration)) {
				w.present = nil
				for range 2 { // the watch finds that all have left
					later(6 * time.Second)
					w.round(t)
				}
			},
			"the SFU has died": func(w *world, _ func(time.Duration)) { require.NoError(t, w.SFURestarted(t.Context())) },
		} {
			t.Run(name, func(t *testing.T) {
				empty(t, db)
				w := newWorld(t, db)
				clock := time.Now()
				w.SetClock(func() time.Time { return clock })
				later := func(d time.Duration) { clock = clock.Add(d) }
				_ = w.grantAna(t)
				bo := w.boAsks(t)
				later(4 * time.Minute)
				require.NoError(t, w.admit(t, bo), "the room was made, and is kept for who comes late")
				w.joins(t, "PA_"+name, ana)
				later(2 * time.Hour)
				require.NoError(t, w.admit(t, bo), "somebody is there")
				ends(w, later)
				require.Equal(t, "left", participants(t, db)["PA_"+name])
				later(50 * time.Second)
				require.NoError(t, w.admit(t, bo), "all come back")
				later(time.Minute)
				w.ensured = nil
				require.ErrorIs(t, w.admit(t, bo), focus.ErrNoCall)
				require.Empty(t, w.ensured)

				require.NoError(t, w.admit(t, w.grantAnaAgain(t)))
				require.NoError(t, w.admit(t, bo), "started anew")
			})
		}
	})
}

// Who has started a call and sends and receives no media yet is in no row. As long as
// the SFU lists them, the call goes on for those who may only join, and no longer.
func TestACallInWhichPeopleOnlyLookOn(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		clock := time.Now()
		w.SetClock(func() time.Time { return clock })
		require.NoError(t, w.admit(t, w.grantAna(t)))
		bo := w.boAsks(t)
		looksOn := map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: {{Identity: ana, SID: "PA_1", JoinedAt: clock, Publish: everything}}}
		w.present = looksOn
		for range 10 { // long after the last token
			w.round(t)
			clock = clock.Add(2 * time.Minute)
			require.NoError(t, w.admit(t, bo), "ana is there: the SFU lists her")
		}
		w.round(t)
		clock = clock.Add(-time.Hour)
		w.round(t)
		require.NoError(t, w.admit(t, bo), "a clock that steps does not end it")

		w.present = nil
		clock = clock.Add(4 * time.Minute)
		w.round(t)
		require.NoError(t, w.admit(t, bo), "she may come back")
		clock = clock.Add(2 * time.Minute)
		w.round(t)
		require.ErrorIs(t, w.admit(t, bo), focus.ErrNoCall)

		require.NoError(t, w.admit(t, w.grantAnaAgain(t)))
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "over", Type: matrixrtc.RoomFinished, Room: roomHash, At: clock.Add(time.Second)}))
		w.present = looksOn // an answer from just before the end
		w.round(t)
		require.ErrorIs(t, w.admit(t, bo), focus.ErrNoCall, "the SFU has said that it is over")
	})
}

// A clock that is set back does not open calls that are over.
func TestWhatIsOverBeforeTheClockSteps(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		clock := time.Now()
		w.SetClock(func() time.Time { return clock })
		_ = w.grantAna(t)
		bo := w.boAsks(t)
		w.joins(t, "PA_1", ana)
		require.NoError(t, w.SFURestarted(t.Context()))
		clock = clock.Add(-time.Hour)
		require.ErrorIs(t, w.admit(t, bo), focus.ErrNoCall)
		require.NoError(t, w.admit(t, w.grantAnaAgain(t)))
		require.NoError(t, w.admit(t, bo))
	})
}

func (w *world) grantAnaAgain(t *testing.T) matrixrtc.Ticket {
	t.Helper()
	w.answer = "@ana:own.example"
	return w.grantAna(t)
}

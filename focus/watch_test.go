package focus_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// round asks the SFU once.
func (w *world) round(t *testing.T) {
	t.Helper()
	next, err := w.Reconcile(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, next)
}

func (w *world) joins(t *testing.T, sid string, who matrixrtc.Identity) {
	t.Helper()
	require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: sid, Type: matrixrtc.ParticipantJoined,
		Room: roomHash, Identity: who, ParticipantSID: sid, At: time.Now()}))
}

func there(sids ...string) map[matrixrtc.SFURoom][]matrixrtc.Participant {
	var all []matrixrtc.Participant
	for _, sid := range sids {
		all = append(all, matrixrtc.Participant{Identity: ana, SID: sid, Joined: true, JoinedAt: time.Now()})
	}
	return map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: all}
}

// What the SFU did not report is found by asking, and told like a report.
func TestLostReports(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		w.present = there("PA_1")
		w.present[roomHash] = append(w.present[roomHash], matrixrtc.Participant{Identity: ana, SID: "PA_2"})
		w.round(t)
		w.round(t)
		require.Equal(t, map[string]string{"PA_1": "joined"}, participants(t, db), "PA_2 is not connected yet")
		require.Len(t, w.told, 1)
		require.Equal(t, matrixrtc.ParticipantJoined, w.told[0].Type)
		require.Empty(t, w.removed)
		w.present[roomHash] = append(w.present[roomHash], matrixrtc.Participant{Identity: "@eve:own.example:DEV", SID: "PA_3", JoinedAt: time.Now()})
		w.round(t)
		require.Equal(t, []matrixrtc.Identity{"@eve:own.example:DEV"}, w.removed, "she looks on without media and without a grant")
	})
}

// One answer without somebody says nothing; two, far enough apart, do.
func TestOneMissSaysNothing(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		clock := time.Now()
		w.SetClock(func() time.Time { return clock })
		_ = w.grantAna(t)
		w.joins(t, "PA_1", ana)
		left := func() bool { return participants(t, db)["PA_1"] == "left" }

		w.round(t)
		clock = clock.Add(4 * time.Second)
		w.round(t)
		require.False(t, left(), "two misses, but only 4 s apart")

		w.present = there("PA_1")
		clock = clock.Add(time.Second)
		w.round(t)
		w.present = nil
		clock = clock.Add(time.Second)
		w.round(t)
		require.False(t, left(), "it was seen in between")

		w.listing = errors.New("no answer")
		clock = clock.Add(10 * time.Second)
		_, err := w.Reconcile(t.Context(), "")
		require.ErrorIs(t, err, w.listing)
		require.False(t, left(), "no answer is no miss")

		w.listing = nil
		w.told = nil
		clock = clock.Add(time.Second)
		w.joins(t, "PA_2", ana) // she is back already
		w.present = there("PA_2")
		w.round(t)
		require.True(t, left())
		require.Equal(t, "joined", participants(t, db)["PA_2"])
		last := w.told[len(w.told)-1]
		require.Equal(t, matrixrtc.ParticipantLeft, last.Type)
		require.Equal(t, "PA_1", last.ParticipantSID)
		require.Equal(t, focus.ReasonMissing, last.Reason)
	})
}

// A removal that the SFU did not carry out is tried again.
func TestTheWatchRemovesWhoHasNoGrant(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		w.joins(t, "PA_1", ana)
		w.present = there("PA_1")
		w.round(t)
		require.Empty(t, w.removed)
		w.revokeAna(t)
		w.removed = nil
		w.round(t)
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed)
		_ = w.grantAna(t)
		w.removed = nil
		w.round(t)
		require.Empty(t, w.removed)
	})
}

// Somebody else may have run this call before, or the database was lost: who
// is in it is not put out of it.
func TestWhoWasThereBeforeUsMayStay(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		was := func(ago time.Duration) {
			w.present = map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: {{Identity: "@old:own.example:DEV",
				SID: "PA_" + ago.String(), Joined: true, JoinedAt: time.Now().Add(-ago)}}}
			w.round(t)
		}
		was(time.Hour)
		require.Empty(t, w.removed)
		was(0)
		require.Equal(t, []matrixrtc.Identity{"@old:own.example:DEV"}, w.removed, "a connection made since then")
	})
}

// A leave that arrives before its join, and a join that arrives after: nobody
// is told that somebody came who is gone.
func TestObserversAreNotToldOfThePast(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "1", Type: matrixrtc.ParticipantLeft,
			Room: roomHash, Identity: ana, ParticipantSID: "PA_1", At: time.Now()}))
		w.joins(t, "PA_1", ana)
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "2", Type: matrixrtc.ParticipantLeft,
			Room: "not ours", Identity: ana, ParticipantSID: "PA_1", At: time.Now()}))
		require.Len(t, w.told, 1)
		require.Equal(t, matrixrtc.ParticipantLeft, w.told[0].Type)
	})
}

// Rooms that nobody is in, or will be soon, are not asked for.
func TestRestingRoomsAreNotAskedFor(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		now := time.Now()
		rooms := func(since time.Time, after matrixrtc.SFURoom) int {
			rooms, err := w.store.Watched(t.Context(), after, since, 10)
			require.NoError(t, err)
			return len(rooms)
		}
		require.Equal(t, 1, rooms(now.Add(-time.Minute), ""))
		require.Equal(t, 0, rooms(now.Add(-time.Minute), roomHash))
		require.Equal(t, 0, rooms(now.Add(time.Minute), ""))
		w.joins(t, "PA_1", ana)
		require.Equal(t, 1, rooms(now.Add(time.Minute), ""))
	})
}

// A room that finished is not the one of the same name that was made since:
// its report may come late.
func TestALateEndOfARoom(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		w.joins(t, "PA_2", ana)
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "late", Type: matrixrtc.RoomFinished,
			Room: roomHash, At: time.Now().Add(-10 * time.Second)}))
		require.Equal(t, "joined", participants(t, db)["PA_2"], "she came to the room after that one")
	})
}

// What was concluded and not reported is taken back when the SFU says otherwise:
// who is there and counts as gone would be asked for by nobody, and would not be
// put out with their membership.
func TestWrongConclusionsAreTakenBack(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for name, wrong := range map[string]func(w *world, clock *time.Time){
			"a listing without them": func(w *world, clock *time.Time) {
				w.present = nil
				w.round(t)
				*clock = clock.Add(6 * time.Second)
				w.round(t)
			},
			"the end of a room": func(w *world, clock *time.Time) {
				require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: clock.String(), Type: matrixrtc.RoomFinished, Room: roomHash, At: *clock}))
			},
			"the start of another SFU": func(w *world, _ *time.Time) { require.NoError(t, w.SFURestarted(t.Context())) },
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, db)
				clock := time.Now()
				w.SetClock(func() time.Time { return clock })
				_ = w.grantAna(t)
				sid := "PA_" + name
				state := func() string { return participants(t, db)[sid] }
				w.joins(t, sid, ana)
				for range 2 { // a second time is as good as the first
					clock = clock.Add(10 * time.Second)
					wrong(w, &clock)
					require.Equal(t, "left", state())
					clock = clock.Add(10 * time.Second)
					w.told = nil
					w.present = there(sid)
					w.round(t)
					require.Equal(t, "joined", state())
					require.Len(t, w.told, 1)
					require.Equal(t, matrixrtc.ParticipantJoined, w.told[0].Type)
				}
				clock = clock.Add(time.Second)
				require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "over", Type: matrixrtc.ParticipantLeft,
					Room: roomHash, Identity: ana, ParticipantSID: sid, At: clock, Reason: "CLIENT_INITIATED"}))
				clock = clock.Add(10 * time.Second)
				w.round(t)
				require.Equal(t, "left", state(), "the SFU itself has reported that end")
			})
		}
	})
}

// People whose SFU is not this process's any more, since the operator changed
// livekit.mode, are not connected for ever.
func TestRowsOfAnSFUThatIsGone(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		clock := time.Now()
		w.SetClock(func() time.Time { return clock })
		_ = w.grantAna(t)
		w.joins(t, "PA_1", ana)
		_, err := db.Exec(t.Context(), "UPDATE call_session SET sfu = 'former'")
		require.NoError(t, err)
		w.round(t)
		clock = clock.Add(6 * time.Second)
		w.round(t)
		require.Equal(t, "left", participants(t, db)["PA_1"])
	})
}

// With more rooms in use than one round asks for, who is missed in one round is
// remembered until that room's next turn.
func TestMissesOfManyRooms(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		clock := time.Now()
		w.SetClock(func() time.Time { return clock })
		_ = w.grantAna(t)
		w.joins(t, "PA_1", ana)
		for n := range 1000 {
			_, err := db.Exec(t.Context(), "INSERT INTO call_session (sfu_room, room_id, slot_id, created_at, last_granted_at) VALUES ($1, $1, '', $2, $2)",
				strconv.Itoa(n), clock.UnixMilli())
			require.NoError(t, err)
		}
		pass := func() (rounds int) {
			for next := matrixrtc.SFURoom(""); rounds == 0 || next != ""; rounds++ {
				clock = clock.Add(2 * time.Second)
				var err error
				next, err = w.Reconcile(t.Context(), next)
				require.NoError(t, err)
			}
			return rounds
		}
		require.Equal(t, 3, pass())
		require.Equal(t, "joined", participants(t, db)["PA_1"])
		_ = pass()
		require.Equal(t, "left", participants(t, db)["PA_1"])
	})
}

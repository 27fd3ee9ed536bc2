package focus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// Whoever connects again and again leaves no more rows than a few, the newest, and
// those of which a report may still come.
func TestAttemptsToConnectLeaveFewRows(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		second := w.grantTo(t, "@ana:own.example", "2")
		w.joins(t, "PA_ana", ana)
		w.joins(t, "PA_there", second.Identity)
		w.goes(t, ana, "PA_ana")
		at := time.Now()
		for n := range 100 {
			event := matrixrtc.SFUEvent{ID: fmt.Sprint(n), Type: matrixrtc.ParticipantAborted, Room: roomHash,
				Identity: second.Identity, ParticipantSID: fmt.Sprint("PA_", n), At: at}
			if n%2 == 0 { // some come so far
				joined := event
				joined.Type = matrixrtc.ParticipantJoined
				require.NoError(t, w.HandleSFUEvent(t.Context(), joined))
			}
			require.NoError(t, w.HandleSFUEvent(t.Context(), event))
			require.NoError(t, w.HandleSFUEvent(t.Context(), event), "repeated")
			// LiveKit tells whole seconds: many come at one time.
			at = at.Add(time.Duration(n%10/9) * time.Minute)
			late := event
			late.Type = matrixrtc.ParticipantJoined
			require.NoError(t, w.HandleSFUEvent(t.Context(), late))
		}
		rows := participants(t, db)
		require.Len(t, rows, 32)
		require.Equal(t, "left", rows["PA_ana"], "what others do is no matter")
		require.Equal(t, "joined", rows["PA_there"], "nor for who is in the call")
		for n := 70; n < 100; n++ { // those of the last two minutes
			require.Equal(t, "left", rows[fmt.Sprint("PA_", n)])
		}
		require.Zero(t, count(t, db, "webhook_seen"))

		ends := func(sid string, at time.Time) {
			require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: sid, Type: matrixrtc.ParticipantLeft, Room: roomHash,
				Identity: second.Identity, ParticipantSID: sid, At: at}))
		}
		ends("PA_later", at.Add(10*time.Minute))
		require.Len(t, participants(t, db), 12, "the newest ten, however old")
		for n := range 20 { // the clock was set back
			ends(fmt.Sprint("PA_back_", n), at.Add(-24*time.Hour+time.Duration(n)*time.Minute))
		}
		rows = participants(t, db)
		require.Len(t, rows, 12)
		for n := 10; n < 20; n++ {
			require.Equal(t, "left", rows[fmt.Sprint("PA_back_", n)], "what lies ahead goes first")
		}
	})
}

// A report of a join that comes again, or late, after many others of the same
// participant, makes nobody a participant who is not there.
func TestALateJoinAfterManyAttempts(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		join := func(n int) matrixrtc.SFUEvent {
			return matrixrtc.SFUEvent{ID: fmt.Sprint("j", n), Type: matrixrtc.ParticipantJoined, Room: roomHash, Identity: ana,
				ParticipantSID: fmt.Sprint("PA_", n), At: time.Now(), Publish: everything}
		}
		first := join(0)
		for n := range 12 {
			require.NoError(t, w.HandleSFUEvent(t.Context(), join(n)))
			w.goes(t, ana, fmt.Sprint("PA_", n))
		}
		require.NoError(t, w.HandleSFUEvent(t.Context(), first))
		rows := participants(t, db)
		require.Len(t, rows, 12)
		for sid, state := range rows {
			require.Equal(t, "left", state, sid)
		}
	})
}

// With the grants that are too many the ends of their connections go, too: a user
// who asks for one token after the other leaves no more rows.
func TestConnectionsGoWithTheirGrants(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		const tokens = 200
		for n := range tokens {
			who := w.grantTo(t, "@ana:own.example", fmt.Sprint(n)).Identity
			w.joins(t, fmt.Sprint("PA_", n), who)
			if n > 0 {
				w.goes(t, who, fmt.Sprint("PA_", n))
			}
		}
		rows := participants(t, db)
		require.Less(t, len(rows), 150)
		require.Equal(t, "joined", rows["PA_0"])
		require.Equal(t, "left", rows[fmt.Sprint("PA_", tokens-1)])
		require.Equal(t, count(t, db, "call_grant"), len(rows))
	})
}

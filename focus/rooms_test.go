package focus_test

import (
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

// Of those who join a call together the first has the room made, until the SFU
// may have lost it.
func TestTheSFUIsAskedOnceForThoseWhoJoinTogether(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, func(o *focus.Options) { o.RoomsKeptInMind = time.Hour })
		ask := func(device string) {
			t.Helper()
			status, body := w.ask(t, "/sfu/get", strings.NewReplacer(`"DEV"`, `"`+device+`"`, `"tok"`, `"for-`+device+`"`).Replace(legacyRequest))
			require.Equal(t, http.StatusOK, status, body)
		}
		ask("A")
		ask("B")
		require.Len(t, w.ensured, 1)
		require.Equal(t, 2, count(t, db, "call_grant"))
		require.NoError(t, w.admit(t, w.ticket("@ana:own.example:B")))
		require.Len(t, w.ensured, 2, "the door asks each time")

		_, _ = w.ask(t, "/sfu/get", strings.NewReplacer("!roomid", "!another", `"tok"`, `"another"`).Replace(legacyRequest))
		require.Len(t, w.ensured, 3, "another room is another")

		require.NoError(t, w.HandleSFUEvent(t.Context(),
			matrixrtc.SFUEvent{ID: "1", Type: matrixrtc.RoomFinished, Room: roomHash, At: time.Now().Add(time.Second)}))
		standing, err := w.store.Standing(t.Context(), roomHash, "@ana:own.example:A")
		require.NoError(t, err)
		require.Zero(t, standing.EnsuredAt)
		ask("C")
		require.Len(t, w.ensured, 4, "the SFU has closed it")
		standing, err = w.store.Standing(t.Context(), roomHash, "@ana:own.example:A")
		require.NoError(t, err)
		require.NotZero(t, standing.EnsuredAt)

		require.NoError(t, w.SFURestarted(t.Context()))
		ask("D")
		require.Len(t, w.ensured, 5, "the SFU has lost it")
	})
}

func TestARoomThatWasNotMadeIsAskedForAgain(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, func(o *focus.Options) { o.RoomsKeptInMind = time.Hour })
		w.sfuDown = http.ErrServerClosed
		status, _ := w.ask(t, "/sfu/get", legacyRequest)
		require.Equal(t, http.StatusInternalServerError, status)
		w.sfuDown = nil
		_, _ = w.ask(t, "/sfu/get", legacyRequest)
		require.Len(t, w.ensured, 1)
	})
}

// A session whose row was just written is not written again, but one that went
// missing is.
func TestASessionThatIsGoneIsWrittenAgain(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.answer = "@bo:friend.example"
		ask := func() int {
			status, _ := w.ask(t, "/sfu/get", strings.ReplaceAll(legacyRequest, "own.example", "friend.example"))
			return status
		}
		require.Equal(t, http.StatusOK, ask())
		_, err := db.Exec(t.Context(), "UPDATE call_session SET last_granted_at = 1")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, ask())
		var at int64
		require.NoError(t, db.QueryRow(t.Context(), "SELECT last_granted_at FROM call_session").Scan(&at))
		require.EqualValues(t, 1, at, "written a moment ago")

		_, err = db.Exec(t.Context(), "DELETE FROM call_session")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, ask())
		require.Equal(t, 1, count(t, db, "call_session"))
		require.Equal(t, 1, count(t, db, "call_grant"))
	})
}

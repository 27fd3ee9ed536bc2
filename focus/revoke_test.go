package focus_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

const ana matrixrtc.Identity = "@ana:own.example:DEV"

// grantAna asks for a token and returns the ticket that it is.
func (w *world) grantAna(t *testing.T) matrixrtc.Ticket {
	t.Helper()
	status, body := w.ask(t, "/sfu/get", legacyRequest)
	require.Equal(t, http.StatusOK, status, body)
	return w.ticket(ana)
}

func (w *world) revokeAna(t *testing.T) {
	t.Helper()
	n, err := w.Revoke(t.Context(), focus.Whom{UserID: "@ana:own.example"}, "test")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// All of this happens within one second, by the clock's whole seconds that
// tokens show: the term alone tells before from after.
func TestRevocationWithinASecond(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		var old []matrixrtc.Ticket
		for range 5 {
			current := w.grantAna(t)
			require.NoError(t, w.admit(t, current))
			for _, before := range old {
				require.ErrorIs(t, w.admit(t, before), focus.ErrNotAdmitted, "%d is not %d", before.Term, current.Term)
			}
			w.revokeAna(t)
			require.ErrorIs(t, w.admit(t, current), focus.ErrNotAdmitted)
			old = append(old, current)
		}
		require.Equal(t, []matrixrtc.Identity{ana, ana, ana, ana, ana}, w.cut)
		require.Equal(t, w.cut, w.removed)
	})
}

// The clock goes back by an hour between two revocations.
func TestRevocationWhenTheClockSteps(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		first := w.grantAna(t)
		ahead := time.Now().Add(time.Hour)
		_, err := w.store.Revoke(t.Context(), focus.Whom{UserID: "@ana:own.example"}, ahead)
		require.NoError(t, err)
		second := w.grantAna(t)
		require.EqualValues(t, ahead.UnixMilli(), second.Term)
		require.NoError(t, w.admit(t, second), "admitted at once, although the revocation seems to be in the future")
		require.ErrorIs(t, w.admit(t, first), focus.ErrNotAdmitted)

		w.revokeAna(t)
		third := w.grantAna(t)
		require.Greater(t, third.Term, second.Term)
		require.NoError(t, w.admit(t, third))
		require.ErrorIs(t, w.admit(t, second), focus.ErrNotAdmitted)
	})
}

// An SFU that drops the term when it makes tokens: of them only the second is
// known in which they were made.
func TestTicketsWithoutATerm(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		refreshed := w.grantAna(t)
		refreshed.Term = matrixrtc.UnknownTerm
		require.NoError(t, w.admit(t, refreshed), "nothing was ever revoked")

		at := time.Unix(1893456000, 500e6)
		_, err := w.store.Revoke(t.Context(), focus.Whom{SFURoom: roomHash, Identity: ana}, at)
		require.NoError(t, err)
		refreshed.MadeAt = at.Add(time.Hour)
		require.ErrorIs(t, w.admit(t, refreshed), focus.ErrNotAdmitted, "there is no grant")
		_ = w.grantAna(t)
		for _, c := range []struct {
			second int64
			passes bool
		}{{at.Unix() - 1, false}, {at.Unix(), false}, {at.Unix() + 1, true}} {
			refreshed.MadeAt = time.Unix(c.second, 0)
			require.Equal(t, c.passes, w.admit(t, refreshed) == nil, c.second)
		}
	})
}

func TestRevokeMeansWhomItNames(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.access["friend.example"] = matrixrtc.Access{Join: true, Create: true}
		anaHere := w.grantAna(t)
		_, _ = w.ask(t, "/sfu/get", strings.NewReplacer("!roomid", "!other", `"tok"`, `"tok2"`).Replace(legacyRequest))
		w.answer = "@bo:friend.example"
		_, _ = w.ask(t, "/sfu/get", strings.ReplaceAll(legacyRequest, "own.example", "friend.example"))
		bo := w.ticket("@bo:friend.example:DEV")

		for _, nobody := range []focus.Whom{{}, {SFURoom: roomHash}, {Identity: ana}, {RoomID: "!roomid:example.com"}} {
			_, err := w.Revoke(t.Context(), nobody, "")
			require.ErrorIs(t, err, focus.ErrWhom)
		}
		for _, c := range []struct {
			whom focus.Whom
			n    int
		}{
			{focus.Whom{UserID: "@nobody:own.example"}, 0},
			{focus.Whom{UserID: "@ana:own.example", RoomID: "!third:example.com"}, 0},
			{focus.Whom{UserID: "@ana:own.example", RoomID: "!other:example.com"}, 1},
			{focus.Whom{UserID: "@bo:friend.example", SFURoom: "other"}, 0},
		} {
			n, err := w.Revoke(t.Context(), c.whom, "")
			require.NoError(t, err)
			require.Equal(t, c.n, n, "%+v", c.whom)
		}
		require.NoError(t, w.admit(t, anaHere))
		n, err := w.Revoke(t.Context(), focus.Whom{UserID: "@ana:own.example"}, "")
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.ErrorIs(t, w.admit(t, anaHere), focus.ErrNotAdmitted)
		require.NoError(t, w.admit(t, bo))
	})
}

// Who gets in without the door, or in the moment of the revocation, is removed
// as soon as the SFU reports it; who may be there is left alone.
func TestWhoJoinsWithoutAGrantIsRemoved(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		join := func(sid string, who matrixrtc.Identity) {
			require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: sid, Type: matrixrtc.ParticipantJoined,
				Room: roomHash, Identity: who, ParticipantSID: sid, At: time.Now()}))
		}
		join("PA_1", ana)
		require.Empty(t, w.removed)
		w.revokeAna(t)
		w.removed = nil
		join("PA_2", ana)
		join("PA_3", "@eve:own.example:DEV")
		require.Equal(t, []matrixrtc.Identity{ana, "@eve:own.example:DEV"}, w.removed)
	})
}

// A row may name an SFU that this process does not have any more.
func TestARoomIsMovedFromAnSFUThatIsGone(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		ticket := w.grantAna(t)
		place := func(sfu string) {
			_, err := db.Exec(t.Context(), "UPDATE call_session SET sfu = $1", sfu)
			require.NoError(t, err)
		}
		place("gone")
		for range 2 {
			admission, err := w.Admit(t.Context(), ticket)
			require.NoError(t, err)
			require.Equal(t, matrixrtc.Admission{SFU: "embedded", Epoch: 2, Publish: matrixrtc.AllSources}, admission, "moved once")
		}
		place("gone again")
		_ = w.grantAna(t)
		standing, err := w.store.Standing(t.Context(), roomHash, ana)
		require.NoError(t, err)
		require.Equal(t, "embedded", standing.SFU)
		require.Equal(t, 3, standing.Epoch, "a token request moves it as well")
	})
}

// The row of a grant that was taken back goes with the years, or when its holder
// asks for others without end. Its term must outlive the tokens of before.
func TestATermOutlivesItsTokens(t *testing.T) {
	for name, forget := range map[string]func(t *testing.T, w *world){
		"trimmed": func(t *testing.T, w *world) {
			at := time.Now().Add(time.Minute)
			for n := range 130 {
				who := matrixrtc.Identity(strconv.Itoa(n))
				_, err := w.store.PutGrant(t.Context(), focus.GrantRow{
					Grant: matrixrtc.Grant{Room: "other", Identity: who}, Slot: matrixrtc.SlotKey{RoomID: "!o", SlotID: "s"},
					Member:     matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "DEV", ID: string(who)},
					Membership: "unverified", SFU: "embedded", ServerName: "own.example", IssuedAt: at, ExpiresAt: at.Add(time.Hour),
				})
				require.NoError(t, err)
				require.NoError(t, w.store.TrimGrants(t.Context(), "@ana:own.example", at))
			}
		},
		"swept": func(t *testing.T, w *world) {
			_, err := w.db.Exec(t.Context(), "UPDATE call_grant SET expires_at = 1")
			require.NoError(t, err)
			require.NoError(t, w.store.Sweep(t.Context(), time.Now()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
				w := newWorld(t, db)
				before := w.grantAna(t)
				w.revokeAna(t)
				forget(t, w)
				after := w.grantAna(t)
				require.NoError(t, w.admit(t, after))
				require.ErrorIs(t, w.admit(t, before), focus.ErrNotAdmitted)
				require.NoError(t, w.store.Sweep(t.Context(), time.Now().Add(48*time.Hour)))
				require.Equal(t, 0, count(t, db, "call_grant"), "not for ever")
			})
		})
	}
}

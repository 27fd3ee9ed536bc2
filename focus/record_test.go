package focus_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// The homeserver says yes, and the user is thrown out while the SFU is waited
// for, by whatever process and whatever its clock says: the yes is from before,
// and undoes nothing. Who is back by then is asked for again, and gets a token.
func TestAnOldYesDoesNotUndoARevocation(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for name, clock := range map[string]time.Duration{"same clock": 0, "clock ahead": time.Hour, "clock behind": -time.Hour} {
			t.Run(name, func(t *testing.T) {
				empty(t, db)
				var sfu *interrupted
				w := newWorldWith(t, db, func(o *focus.Options) {
					required(o)
					sfu = &interrupted{SFU: o.SFUs["embedded"]}
					o.SFUs["embedded"] = sfu
				})
				other := newWorldWith(t, db, required) // another process
				other.SetClock(func() time.Time { return time.Now().Add(clock) })
				thrownOut := func() {
					other.members.in = map[string]bool{}
					require.NoError(t, other.MemberGone(t.Context(), "!roomid:example.com", "@ana:own.example"))
				}
				w.members.in = map[string]bool{anaIsIn: true}
				_ = w.grantAna(t)
				sfu.ensuring = func() { thrownOut(); delete(w.members.in, anaIsIn) }
				status, body := w.ask(t, "/sfu/get", legacyRequest)
				require.Equal(t, http.StatusForbidden, status, body)
				require.Contains(t, body, "only members of the room may join its calls")
				require.ErrorIs(t, w.admit(t, w.ticket(ana)), focus.ErrNotAdmitted)
				standing, err := w.store.Standing(t.Context(), roomHash, ana)
				require.NoError(t, err)
				require.True(t, standing.Revoked)

				w.members.in[anaIsIn] = true
				require.NoError(t, w.admit(t, w.grantAna(t)), "invited again")

				sfu.ensuring = thrownOut
				require.NoError(t, w.admit(t, w.grantAna(t)), "and invited again while she asks")

				sfu.ensuring = func() { thrownOut(); w.members.silent = errors.New("silent") }
				status, body = w.ask(t, "/sfu/get", legacyRequest)
				require.Equal(t, http.StatusBadGateway, status, body)
			})
		}
	})
}

// A row that is written late, as one of somebody else's turn, is no exception:
// of a revocation that it knows nothing of it undoes nothing, and of the one that
// it knows it does.
func TestAGrantThatIsWrittenAfterARevocation(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		store, now := focus.NewStore(db, db), time.Now()
		row := focus.GrantRow{
			Grant: matrixrtc.Grant{Room: roomHash, Identity: ana, Publish: everything}, SFU: "embedded",
			Slot:   matrixrtc.SlotKey{RoomID: "!roomid:example.com", SlotID: matrixrtc.RoomCallSlot},
			Member: matrixrtc.Member{UserID: "@ana:own.example"}, ServerName: "own.example", IssuedAt: now, ExpiresAt: now.Add(time.Hour),
		}
		put := func(after int64) (int64, error) {
			row.After = after
			return store.PutGrant(t.Context(), row)
		}
		revoke := func() int64 {
			_, err := store.Revoke(t.Context(), focus.Whom{UserID: "@ana:own.example"}, now)
			require.NoError(t, err)
			standing, err := store.Standing(t.Context(), roomHash, ana)
			require.NoError(t, err)
			return standing.Term
		}
		term, err := put(0)
		require.NoError(t, err)
		require.Zero(t, term)
		first := revoke()
		_, err = put(0)
		require.ErrorIs(t, err, focus.ErrRevoked)
		second := revoke() // in the same millisecond
		_, err = put(first)
		require.ErrorIs(t, err, focus.ErrRevoked)
		term, err = put(second)
		require.NoError(t, err)
		require.Equal(t, second, term)
		term, err = put(0)
		require.NoError(t, err, "it lives")
		require.Equal(t, second, term)
	})
}

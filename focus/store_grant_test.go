package focus

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// A batch of any size is stored whole, and of two grants of one identity the
// later one counts.
func TestGrantsThatComeTogether(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		s := NewStore(db, db)
		issued := time.UnixMilli(1793000000000)
		row := func(room, identity string, ensured bool, publish matrixrtc.Sources) *writtenGrant {
			return &writtenGrant{GrantRow: GrantRow{
				SFU: "embedded", Membership: "unverified",
				Grant: matrixrtc.Grant{Room: matrixrtc.SFURoom(room), Identity: matrixrtc.Identity(identity), Publish: publish},
				Slot:  matrixrtc.SlotKey{RoomID: "!r:hs", SlotID: room}, Ensured: ensured, IssuedAt: issued, ExpiresAt: issued.Add(time.Hour),
			}}
		}
		for _, n := range []int{1, 2, maxBatch} {
			var rows []*writtenGrant
			for i := range n {
				rows = append(rows, row(fmt.Sprintf("room %d", i%3), fmt.Sprintf("identity %d", i), i == 0, matrixrtc.AllSources))
			}
			require.NoError(t, s.writeGrants(t.Context(), rows))
			var stored int
			require.NoError(t, db.QueryRow(t.Context(), "SELECT COUNT(*) FROM call_grant").Scan(&stored))
			require.Equal(t, n, stored)
		}

		require.NoError(t, s.writeGrants(t.Context(), []*writtenGrant{
			row("open", "a", false, matrixrtc.AllSources), row("open", "b", true, matrixrtc.Microphone),
			row("open", "c", false, matrixrtc.AllSources), row("open", "a", false, 0),
		}))
		var publish bool
		var ensuredAt, expiresAt int64
		require.NoError(t, db.QueryRow(t.Context(), `SELECT g.can_publish, s.ensured_at, g.expires_at
			FROM call_grant g JOIN call_session s ON s.sfu_room = g.sfu_room
			WHERE g.sfu_room = 'open' AND g.identity = 'a'`).Scan(&publish, &ensuredAt, &expiresAt))
		require.False(t, publish, "the later one")

		// Each row gets its own term, whatever order the database tells them in.
		for identity, at := range map[string]int64{"a": 11, "b": 22, "c": 33} {
			_, err := db.Exec(t.Context(), "UPDATE call_grant SET revoked_at = $1 WHERE sfu_room = 'open' AND identity = $2", at, identity)
			require.NoError(t, err)
		}
		again := []*writtenGrant{row("open", "c", false, matrixrtc.AllSources), row("open", "a", false, matrixrtc.AllSources), row("open", "b", false, matrixrtc.AllSources), row("open", "a", false, matrixrtc.AllSources)}
		require.NoError(t, s.writeGrants(t.Context(), again))
		for _, g := range again {
			require.Equal(t, map[matrixrtc.Identity]int64{"a": 11, "b": 22, "c": 33}[g.Identity], g.term)
		}
		require.Equal(t, issued.UnixMilli(), ensuredAt, "one of them had the room made")
		require.Equal(t, issued.Add(time.Hour).UnixMilli(), expiresAt)
	})
}

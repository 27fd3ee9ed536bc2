package focus_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// Clients ask for another token while they are let in with the one before, and
// others for their first: neither waits for the other in a circle, which only
// ends when PostgreSQL makes one of them fail.
func TestSeatsAndTokensAtOnce(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		store := focus.NewStore(db, db)
		now := time.Now()
		row := func(n int) focus.GrantRow {
			user := id.UserID(fmt.Sprintf("@u%d:own.example", n))
			return focus.GrantRow{
				Grant: matrixrtc.Grant{Room: roomHash, Identity: matrixrtc.Identity(user), Publish: everything}, SFU: "embedded",
				Slot:   matrixrtc.SlotKey{RoomID: "!roomid:example.com", SlotID: matrixrtc.RoomCallSlot},
				Member: matrixrtc.Member{UserID: user}, ServerName: "own.example", MayCreate: true, IssuedAt: now, ExpiresAt: now.Add(time.Hour),
			}
		}
		const most = 8
		for n := range most {
			_, err := store.PutGrant(t.Context(), row(n))
			require.NoError(t, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var working sync.WaitGroup
		for n := range most {
			working.Go(func() {
				for range 40 {
					if err := store.TakeSeat(ctx, roomHash, row(n).Identity, most, now); err != nil {
						t.Error("a seat: ", err)
					}
				}
			})
			working.Go(func() {
				for k := range 40 {
					for _, who := range []int{n, 100 + 100*n + k} { // the same again, and a new one
						working.Go(func() {
							if _, err := store.PutGrant(ctx, row(who)); err != nil {
								t.Error("a grant: ", err)
							}
						})
					}
				}
			})
		}
		working.Wait()
	})
}

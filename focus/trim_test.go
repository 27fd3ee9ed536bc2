package focus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

// TestTrimmingOneUserStopsNobodyElse: a row of theirs that somebody holds, a replica
// that hangs or an operator's own session, keeps nobody else from a token.
func TestTrimmingOneUserStopsNobodyElse(t *testing.T) {
	db, err := migrations.Open(t.Context(), migrationstest.Postgres(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	store, now := focus.NewStore(db, db), time.Now()
	put := func(ctx context.Context, user id.UserID, n int) error {
		at := now.Add(time.Duration(n) * time.Second)
		_, err := store.PutGrant(ctx, focus.GrantRow{
			Grant: matrixrtc.Grant{Room: matrixrtc.SFURoom(fmt.Sprintf("%s %d", user, n)), Identity: matrixrtc.Identity(user)}, SFU: "embedded",
			Slot:   matrixrtc.SlotKey{RoomID: id.RoomID(fmt.Sprintf("!%s%d", user, n)), SlotID: "s"},
			Member: matrixrtc.Member{UserID: user}, Membership: "unverified", IssuedAt: at, ExpiresAt: at.Add(time.Hour),
		})
		return err
	}
	for n := range 101 {
		require.NoError(t, put(t.Context(), "@ana:own.example", n))
	}
	holder, err := db.RawDB.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = holder.ExecContext(t.Context(), "SELECT 1 FROM call_grant WHERE sfu_room = '@ana:own.example 0' FOR UPDATE")
	require.NoError(t, err)
	for range 24 {
		require.NoError(t, store.TrimGrants(t.Context(), "@ana:own.example", now))
	}
	trimmed := make(chan error, 1)
	go func() { trimmed <- store.TrimGrants(t.Context(), "@ana:own.example", now) }()
	require.Eventually(t, func() bool {
		var waiting int
		err := db.QueryRow(t.Context(), "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waiting)
		return err == nil && waiting > 0
	}, time.Minute, 5*time.Millisecond)

	soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.NoError(t, put(soon, "@bo:own.example", 1))
	require.NoError(t, holder.Rollback())
	require.NoError(t, <-trimmed)
}

package focus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations/migrationstest"
)

// plan is how the database would carry out a statement, a step in each line.
func plan(t *testing.T, db *dbutil.Database, statement string, values ...any) string {
	t.Helper()
	explain := "EXPLAIN "
	if db.Dialect == dbutil.SQLite {
		explain = "EXPLAIN QUERY PLAN "
	}
	rows, err := db.Query(t.Context(), explain+statement, values...)
	require.NoError(t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(t, err)
	var steps []string
	for rows.Next() {
		into := make([]any, len(columns))
		for i := range into {
			into[i] = new(string)
		}
		require.NoError(t, rows.Scan(into...))
		steps = append(steps, *into[len(into)-1].(*string))
	}
	require.NoError(t, rows.Err())
	return strings.Join(steps, "\n")
}

// Who is there is found by an index of its own, however many have left: nobody's
// way in is slower for it.
func TestNobodyPassesOverWhoHasLeft(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for _, fill := range []string{
			`INSERT INTO call_session (sfu_room, room_id, slot_id, created_at, last_granted_at)
				SELECT 'room ' || i, '!r' || i, 'slot', 1, 1 FROM n WHERE i < 200`,
			`INSERT INTO call_grant (sfu_room, identity, user_id, device_id, member_id, server_name, route, can_publish, may_create, issued_at, expires_at)
				SELECT 'room ' || (i % 200), 'who ' || i, '@u' || (i % 50), '', '', '', '', true, true, 1, 1 FROM n WHERE i < 2000`,
			`INSERT INTO call_participant (sfu_room, participant_sid, identity, state, joined_at, left_at)
				SELECT 'room ' || (i % 200), 'PA_' || i, 'who ' || (i % 2000), CASE WHEN i < 200 THEN 'joined' ELSE 'left' END, 1,
					CASE WHEN i >= 200 THEN i END FROM n WHERE i < 20000`,
		} {
			_, err := db.Exec(t.Context(), strings.Replace(fill, "SELECT", "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT", 1))
			require.NoError(t, err)
		}
		if db.Dialect == dbutil.Postgres { // which does so by itself, in time
			_, err := db.Exec(t.Context(), "ANALYZE")
			require.NoError(t, err)
		}
		now := time.Now().UnixMilli()
		for name, c := range map[string]struct {
			statement string
			values    []any
		}{
			"the seats":                   {countSeats, []any{"room 1", now, "who 1", now}},
			"the rooms of the watch":      {watchedRooms, []any{"", now, 500}},
			"the people of the watch":     {joinedIn, []any{"room 1"}},
			"the sweep of members":        {getInCalls, []any{"", "", 2000}},
			"who is connected":            {getConnected, []any{"", "", "", 1000}},
			"calls that run":              {getRunning, []any{"", 1000}},
			"the sweep of grants":         {sweepGrants, []any{now}},
			"trimming":                    {trimGrants, []any{"@u1", 100, now, false}},
			"the beginning of a call":     {startCall, []any{"room 1", now, now, "who 1"}},
			"a token":                     {putSession, []any{"room 1", "!r1", "slot", now, now, "embedded", ""}},
			"a room that was made":        {setEnsured, []any{"room 1", now, ""}},
			"the end of a room":           {closeRoom, []any{"room 1", now, now}},
			"the end of the media server": {closeEveryone, []any{now, reasonRestarted}},
		} {
			steps := plan(t, db, c.statement, c.values...)
			require.Contains(t, steps, "call_participant_joined_idx", "%s:\n%s", name, steps)
			for line := range strings.Lines(steps) {
				if strings.Contains(line, "Seq Scan on call_participant") || strings.Contains(line, "SCAN p") && !strings.Contains(line, "joined_idx") {
					require.Fail(t, fmt.Sprintf("%s:\n%s", name, steps))
				}
			}
		}
		steps := plan(t, db, trimLeft, "room 1", "who 1", "PA_1", keptLeft, now, now)
		require.Contains(t, steps, "call_participant_identity_idx", steps)
		steps = plan(t, db, startCall, "room 1", now, now, "who 1")
		require.Contains(t, steps, "call_participant_left_idx", "who has left lately is found by when: %s", steps)
	})
}

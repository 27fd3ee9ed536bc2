package focus

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"passerelle/focus/matrixrtc"
)

// GrantRow is what one token gave to whom.
type GrantRow struct {
	matrixrtc.Grant
	Slot       matrixrtc.SlotKey
	Member     matrixrtc.Member
	ServerName string
	// Route is the way by which it was asked for: legacy or standalone.
	Route     string
	MayCreate bool
	// Ensured: the SFU was just asked to have the room.
	Ensured   bool
	IssuedAt  time.Time
	ExpiresAt time.Time
}

const (
	putSession = `
		INSERT INTO call_session (sfu_room, room_id, slot_id, created_at, last_granted_at, ensured_at)
		VALUES ($1, $2, $3, $4, $4, $5)
		ON CONFLICT (sfu_room) DO UPDATE SET
			last_granted_at = excluded.last_granted_at,
			ensured_at = COALESCE(excluded.ensured_at, call_session.ensured_at),
			ended_at = CASE WHEN excluded.ensured_at IS NULL THEN call_session.ended_at END`

	// What comes between the two is one list of values for each row.
	putGrantsBegin = `INSERT INTO call_grant (sfu_room, identity, user_id, device_id, member_id, server_name, route,
		can_publish, may_create, issued_at, expires_at) VALUES `
	putGrantsEnd = `
		ON CONFLICT (sfu_room, identity) DO UPDATE SET
			user_id = excluded.user_id, device_id = excluded.device_id, member_id = excluded.member_id,
			server_name = excluded.server_name, route = excluded.route, can_publish = excluded.can_publish,
			may_create = excluded.may_create, issued_at = excluded.issued_at, expires_at = excluded.expires_at,
			revoked = false`
	grantColumns = 11
)

// sessionKept is how long the row of a session, once written, is not written
// again for a grant that has nothing new to say of it. Its last_granted_at is
// behind by that much; Sweep, which reads it, counts in days.
const sessionKept = time.Minute

// PutGrant records the session, if it is new, and the grant, replacing an
// earlier one of the same identity. It returns once that is committed; grants
// that come together share a commit.
func (s *Store) PutGrant(ctx context.Context, g GrantRow) error {
	if err := s.grants.put(ctx, g); err != nil {
		return fmt.Errorf("store grant: %w", err)
	}
	return nil
}

// writeGrants stores all rows or none.
func (s *Store) writeGrants(ctx context.Context, rows []GrantRow) error {
	grants := inOrder(rows)
	sessions := s.sessionsToWrite(grants)
	if len(sessions) == 0 {
		// A single statement is a transaction by itself.
		if s.insertGrants(ctx, grants) == nil {
			return nil
		}
		// Perhaps somebody removed a session: nothing is taken as there now.
		s.sessions.forgetAll()
		sessions = s.sessionsToWrite(grants)
	}
	err := s.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		for _, g := range sessions {
			issued := g.IssuedAt.UnixMilli()
			ensured := sql.NullInt64{Int64: issued, Valid: g.Ensured}
			if _, err := s.db.Exec(ctx, putSession, g.Room, g.Slot.RoomID, g.Slot.SlotID, issued, ensured); err != nil {
				return err
			}
		}
		return s.insertGrants(ctx, grants)
	})
	if err != nil {
		return err
	}
	for _, g := range sessions {
		s.sessions.add(g.Room, g.IssuedAt)
	}
	return nil
}

// inOrder returns the rows in one order, whoever writes: replicas that lock
// the same rows crosswise would block each other. Of several of one identity
// only the last is left: PostgreSQL changes no row twice in one statement.
func inOrder(rows []GrantRow) []GrantRow {
	slices.SortStableFunc(rows, func(a, b GrantRow) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Identity, b.Identity))
	})
	left := rows[:0:0]
	for i, row := range rows {
		if i+1 < len(rows) && rows[i+1].Room == row.Room && rows[i+1].Identity == row.Identity {
			continue
		}
		left = append(left, row)
	}
	return left
}

// sessionsToWrite are those of the rows whose session has to be written, one
// for each session.
func (s *Store) sessionsToWrite(grants []GrantRow) []GrantRow {
	var sessions []GrantRow
	for _, g := range grants {
		if !g.Ensured && s.sessions.has(g.Room, g.IssuedAt) {
			continue
		}
		if last := len(sessions) - 1; last >= 0 && sessions[last].Room == g.Room {
			if g.Ensured || !sessions[last].Ensured {
				sessions[last] = g
			}
			continue
		}
		sessions = append(sessions, g)
	}
	return sessions
}

func (s *Store) insertGrants(ctx context.Context, grants []GrantRow) error {
	values := make([]any, 0, len(grants)*grantColumns)
	for _, g := range grants {
		values = append(values, string(g.Room), string(g.Identity), string(g.Member.UserID), string(g.Member.DeviceID), g.Member.ID,
			g.ServerName, g.Route, g.Publish, g.MayCreate, g.IssuedAt.UnixMilli(), g.ExpiresAt.UnixMilli())
	}
	_, err := s.db.Exec(ctx, putGrants[len(grants)-1], values...)
	return err
}

// putGrants[n-1] stores n grants.
var putGrants = func() (statements [maxBatch]string) {
	for n := range statements {
		var rows strings.Builder
		for i := range (n + 1) * grantColumns {
			switch {
			case i%grantColumns > 0:
				rows.WriteString(", $")
			case i > 0:
				rows.WriteString("), ($")
			default:
				rows.WriteString("($")
			}
			rows.WriteString(strconv.Itoa(i + 1))
		}
		statements[n] = putGrantsBegin + rows.String() + ")" + putGrantsEnd
	}
	return statements
}()

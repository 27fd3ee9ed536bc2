package focus

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"passerelle/focus/matrixrtc"
)

// GrantRow is what one token gives to whom. The term is the row's and not given.
type GrantRow struct {
	matrixrtc.Grant
	// SFU is where the room is, or will be.
	SFU        string
	Slot       matrixrtc.SlotKey
	Member     matrixrtc.Member
	ServerName string
	// Route is the way by which it was asked for: legacy, standalone, proxied
	// or federated.
	Route string
	// Membership is how it was proved that the user is in the room: verified,
	// or unverified where nobody was asked.
	Membership string
	MayCreate  bool
	// Ensured: the SFU was just asked to have the room.
	Ensured bool
	// After is the term of the revocation after which it was asked whether the
	// user may be there; 0 where none was known. It is compared with the row's
	// and no clock with another: theirs step, and those of several processes
	// differ.
	After     int64
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// ErrRevoked is returned by [Store.PutGrant] for a grant that was taken back
// after it was asked whether it may be given.
var ErrRevoked = errors.New("the grant was revoked meanwhile")

// writtenGrant is a row with what the database knew of it: its term, and whether
// it was written at all.
type writtenGrant struct {
	GrantRow
	term   int64
	stored bool
}

const (
	// inUse: somebody is in the session's room. As long as nobody is, the last
	// one who has it made is taken for who starts the call.
	inUse = `EXISTS (SELECT 1 FROM call_participant p WHERE p.sfu_room = call_session.sfu_room AND p.state = 'joined')`

	putSession = `
		INSERT INTO call_session (sfu_room, room_id, slot_id, created_at, last_granted_at, ensured_at, sfu, started_by)
		VALUES ($1, $2, $3, $4, $4, $5, $6, $7)
		ON CONFLICT (sfu_room) DO UPDATE SET
			last_granted_at = excluded.last_granted_at,
			sfu = excluded.sfu,
			epoch = CASE WHEN call_session.sfu = excluded.sfu THEN call_session.epoch ELSE call_session.epoch + 1 END,
			ensured_at = COALESCE(excluded.ensured_at, call_session.ensured_at),
			started_by = CASE WHEN excluded.ensured_at IS NULL OR ` + inUse + ` THEN call_session.started_by ELSE excluded.started_by END,
			ended_at = CASE WHEN excluded.ensured_at IS NULL THEN call_session.ended_at END`

	// What comes between the two is one list of values for each row.
	putGrantsBegin = `INSERT INTO call_grant (sfu_room, identity, user_id, device_id, member_id, server_name, route,
		membership, can_publish, sources, may_create, issued_at, expires_at, revoked_at) VALUES `
	// One that was taken back stays so, and is not returned, unless it was asked
	// after that whether it may be given again.
	putGrantsEnd = `
		ON CONFLICT (sfu_room, identity) DO UPDATE SET
			user_id = excluded.user_id, device_id = excluded.device_id, member_id = excluded.member_id,
			server_name = excluded.server_name, route = excluded.route,
			membership = excluded.membership, can_publish = excluded.can_publish, sources = excluded.sources,
			may_create = excluded.may_create, issued_at = excluded.issued_at, expires_at = excluded.expires_at,
			revoked = false
		WHERE NOT call_grant.revoked OR call_grant.revoked_at = excluded.revoked_at
		RETURNING sfu_room, identity, COALESCE(revoked_at, 0)`
	grantColumns = 14
)

// sessionKept is how long the row of a session, once written, is not written
// again for a grant that has nothing new to say of it. Its last_granted_at is
// behind by that much; Sweep, which reads it, counts in days.
const sessionKept = time.Minute

// PutGrant records the session, if it is new, and the grant, replacing an
// earlier one of the same identity, and returns its term. It returns once that
// is committed; grants that come together share a commit. One that was taken back
// by a revocation that the row knows nothing of (After) stays so: [ErrRevoked].
func (s *Store) PutGrant(ctx context.Context, g GrantRow) (term int64, err error) {
	written := &writtenGrant{GrantRow: g}
	if err := s.grants.put(ctx, written); err != nil {
		return 0, fmt.Errorf("store grant: %w", err)
	}
	if !written.stored {
		return 0, ErrRevoked
	}
	return written.term, nil
}

// writeGrants stores all rows or none.
func (s *Store) writeGrants(ctx context.Context, rows []*writtenGrant) error {
	slices.SortStableFunc(rows, byRoomAndIdentity)
	grants := lastOfEach(rows)
	if err := s.putAll(ctx, grants); err != nil {
		return err
	}
	// Those of one identity have one row, and one fate.
	at := 0
	for _, row := range rows {
		for byRoomAndIdentity(grants[at], row) != 0 {
			at++
		}
		row.term, row.stored = grants[at].term, grants[at].stored
	}
	return nil
}

func (s *Store) putAll(ctx context.Context, grants []*writtenGrant) error {
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
			if _, err := s.db.Exec(ctx, putSession, g.Room, g.Slot.RoomID, g.Slot.SlotID, issued, ensured, g.SFU, starter(g.GrantRow)); err != nil {
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

// starter is the server whose user has the room made; empty for who does not.
func starter(g GrantRow) string {
	if g.Ensured {
		return g.ServerName
	}
	return ""
}

// byRoomAndIdentity is the one order in which rows are written, whoever does:
// replicas that lock the same rows crosswise would block each other.
func byRoomAndIdentity(a, b *writtenGrant) int {
	return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Identity, b.Identity))
}

// lastOfEach leaves of several rows of one identity, which stand side by side,
// only the last: PostgreSQL changes no row twice in one statement.
func lastOfEach(rows []*writtenGrant) []*writtenGrant {
	left := rows[:0:0]
	for i, row := range rows {
		if i+1 == len(rows) || byRoomAndIdentity(rows[i+1], row) != 0 {
			left = append(left, row)
		}
	}
	return left
}

// sessionsToWrite are those of the rows whose session has to be written, one
// for each session.
func (s *Store) sessionsToWrite(grants []*writtenGrant) []*writtenGrant {
	var sessions []*writtenGrant
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

// insertGrants stores the rows in one statement, and notes which it has stored,
// and their terms.
func (s *Store) insertGrants(ctx context.Context, grants []*writtenGrant) error {
	values := make([]any, 0, len(grants)*grantColumns)
	for _, g := range grants {
		g.stored = false // it may be so from a try that was rolled back
		values = append(values, string(g.Room), string(g.Identity), string(g.Member.UserID), string(g.Member.DeviceID), g.Member.ID,
			g.ServerName, g.Route, g.Membership, g.Publish != 0, int(g.Publish), g.MayCreate, g.IssuedAt.UnixMilli(), g.ExpiresAt.UnixMilli(),
			sql.NullInt64{Int64: g.After, Valid: g.After != 0})
	}
	rows, err := s.db.Query(ctx, putGrants[len(grants)-1], values...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var of writtenGrant
		if err := rows.Scan(&of.Room, &of.Identity, &of.term); err != nil {
			return err
		}
		// They may come in any order.
		if n, found := slices.BinarySearchFunc(grants, &of, byRoomAndIdentity); found {
			grants[n].term, grants[n].stored = of.term, true
		}
	}
	return rows.Err()
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

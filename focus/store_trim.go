package focus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

const (
	// maxGrants bounds the grants of one user that nobody is connected with.
	// Each request may name another room, slot or member, so without it one
	// user's rows would have no end. The oldest go first, and their tokens admit
	// no more. A client needs one or two for each call.
	maxGrants = 100
	// maxTerms is the same for grants that were taken back within a day, whether
	// they were given again or not: what is left of them keeps older tokens out.
	maxTerms = 1000
	// trimEvery is how many grants of a user are written before the user's rows
	// are counted.
	trimEvery = 25
	// maxWriters bounds how many users are kept account of.
	maxWriters = 10_000
)

const (
	trimGrants = `
		DELETE FROM call_grant WHERE (sfu_room, identity) IN (
			SELECT g.sfu_room, g.identity FROM call_grant g
			WHERE g.user_id = $1 AND (COALESCE(g.revoked_at, 0) > $3) = $4 AND NOT EXISTS (
				SELECT 1 FROM call_participant p
				WHERE p.sfu_room = g.sfu_room AND p.identity = g.identity AND p.state = 'joined')
			ORDER BY g.issued_at DESC, g.sfu_room, g.identity
			LIMIT 1000000000 OFFSET $2)
		RETURNING sfu_room, identity, issued_at`
	// Without the grant nobody knows any more whose connections they were.
	trimConnections = `DELETE FROM call_participant WHERE sfu_room = $1 AND identity = $2 AND state = 'left'`
	// PostgreSQL takes the row without looking again at who came while it waited
	// for it, so it is locked first, by a statement of its own.
	lockSession = `SELECT sfu_room FROM call_session WHERE sfu_room = $1 FOR UPDATE`
	trimSession = `
		DELETE FROM call_session WHERE sfu_room = $1 AND last_granted_at <= $2
			AND NOT EXISTS (SELECT 1 FROM call_grant g WHERE g.sfu_room = call_session.sfu_room)
			AND NOT EXISTS (SELECT 1 FROM call_participant p WHERE p.sfu_room = call_session.sfu_room)`
)

// grantCounts counts grants by user since the user's rows were trimmed.
type grantCounts struct {
	mu sync.Mutex
	of map[id.UserID]int
}

// due counts one more grant and tells whether the user's rows are to be
// trimmed now.
func (c *grantCounts) due(user id.UserID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil || len(c.of) >= maxWriters {
		c.of = map[id.UserID]int{}
	}
	c.of[user]++
	if c.of[user] < trimEvery {
		return false
	}
	delete(c.of, user)
	return true
}

// TrimGrants keeps the rows of a user, who was just given a grant, bounded.
// Mostly it does nothing.
func (s *Store) TrimGrants(ctx context.Context, user id.UserID, now time.Time) error {
	if !s.written.due(user) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := s.trimUser(ctx, user, now); err != nil {
		return fmt.Errorf("trim grants: %w", err)
	}
	return nil
}

// trimUser deletes the oldest grants of one user, and then the sessions that
// were there for them alone: in steps, since others take a session first and its
// grants later. What a crash leaves between them the sweep finds.
func (s *Store) trimUser(ctx context.Context, user id.UserID, now time.Time) error {
	rooms := map[matrixrtc.SFURoom]int64{}
	lately := now.Add(-keptGrant).UnixMilli()
	if err := s.trimRows(ctx, rooms, user, maxGrants, lately, false); err != nil {
		return err
	}
	if err := s.trimRows(ctx, rooms, user, maxTerms, lately, true); err != nil || len(rooms) == 0 {
		return err
	}
	return s.db.DoTxn(ctx, nil, func(ctx context.Context) error { return s.trimSessions(ctx, rooms) })
}

func (s *Store) trimSessions(ctx context.Context, rooms map[matrixrtc.SFURoom]int64) error {
	for _, room := range slices.Sorted(maps.Keys(rooms)) {
		if s.db.Dialect == dbutil.Postgres {
			if _, err := s.db.Exec(ctx, lockSession, room); err != nil {
				return err
			}
		}
		if _, err := s.db.Exec(ctx, trimSession, room, rooms[room]); err != nil {
			return err
		}
	}
	return nil
}

// trimRows deletes all but the newest grants, of those that were taken back
// lately or of the others, with what is left of their holders' connections, and
// adds the rooms that they were for, with when the last of them was issued.
func (s *Store) trimRows(ctx context.Context, rooms map[matrixrtc.SFURoom]int64, user id.UserID, most int, lately int64, revoked bool) error {
	type trimmed struct {
		room   matrixrtc.SFURoom
		who    matrixrtc.Identity
		issued int64
	}
	rows, err := s.db.Query(ctx, trimGrants, user, most, lately, revoked)
	grants, err := dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (t trimmed, err error) {
		err = row.Scan(&t.room, &t.who, &t.issued)
		return t, err
	}, err).AsList()
	if err != nil {
		return err
	}
	for _, g := range grants {
		rooms[g.room] = max(rooms[g.room], g.issued)
		if _, err := s.db.Exec(ctx, trimConnections, g.room, g.who); err != nil {
			return err
		}
	}
	return nil
}

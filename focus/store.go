package focus

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"go.mau.fi/util/dbutil"

	"passerelle/focus/matrixrtc"
)

// Store keeps sessions, grants and participants. LiveKit knows rooms and
// identities by hashes only; these rows are the one way back to a room and a
// person. All times are milliseconds since 1970. It is safe for concurrent use.
type Store struct {
	db     *dbutil.Database
	grants *batch[*writtenGrant]
}

// NewStore returns the store over a database that is on the latest schema.
func NewStore(db *dbutil.Database) *Store {
	s := &Store{db: db}
	s.grants = newBatch(s.writeGrants)
	return s
}

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
	Ensured   bool
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// writtenGrant is a row with what the database knew of it: its term.
type writtenGrant struct {
	GrantRow
	term int64
}

const (
	putSession = `
		INSERT INTO call_session (sfu_room, room_id, slot_id, created_at, last_granted_at, ensured_at, sfu)
		VALUES ($1, $2, $3, $4, $4, $5, $6)
		ON CONFLICT (sfu_room) DO UPDATE SET
			last_granted_at = excluded.last_granted_at,
			sfu = excluded.sfu,
			epoch = CASE WHEN call_session.sfu = excluded.sfu THEN call_session.epoch ELSE call_session.epoch + 1 END,
			ensured_at = COALESCE(excluded.ensured_at, call_session.ensured_at),
			ended_at = CASE WHEN excluded.ensured_at IS NULL THEN call_session.ended_at END`
	putGrant = `
		INSERT INTO call_grant (sfu_room, identity, user_id, device_id, member_id, server_name, route,
		                        membership, can_publish, may_create, issued_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (sfu_room, identity) DO UPDATE SET
			user_id = excluded.user_id, device_id = excluded.device_id, member_id = excluded.member_id,
			server_name = excluded.server_name, route = excluded.route,
			membership = excluded.membership, can_publish = excluded.can_publish,
			may_create = excluded.may_create, issued_at = excluded.issued_at, expires_at = excluded.expires_at,
			revoked = false
		RETURNING COALESCE(revoked_at, 0)`
)

// PutGrant records the session, if it is new, and the grant, replacing an
// earlier one of the same identity, and returns its term. It returns once that
// is committed; grants that come together share a commit.
func (s *Store) PutGrant(ctx context.Context, g GrantRow) (term int64, err error) {
	written := &writtenGrant{GrantRow: g}
	if err := s.grants.put(ctx, written); err != nil {
		return 0, fmt.Errorf("store grant: %w", err)
	}
	return written.term, nil
}

func (s *Store) writeGrants(ctx context.Context, grants []*writtenGrant) error {
	// In one order, whoever writes: replicas that lock the same rows crosswise
	// would block each other.
	slices.SortStableFunc(grants, func(a, b *writtenGrant) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Identity, b.Identity))
	})
	return s.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		for _, g := range grants {
			issued := g.IssuedAt.UnixMilli()
			ensured := sql.NullInt64{Int64: issued, Valid: g.Ensured}
			if _, err := s.db.Exec(ctx, putSession, g.Room, g.Slot.RoomID, g.Slot.SlotID, issued, ensured, g.SFU); err != nil {
				return err
			}
			err := s.db.QueryRow(ctx, putGrant, g.Room, g.Identity, g.Member.UserID, g.Member.DeviceID, g.Member.ID,
				g.ServerName, g.Route, g.Membership, g.Publish, g.MayCreate, issued, g.ExpiresAt.UnixMilli()).Scan(&g.term)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

package focus

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
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
	grants *batch[GrantRow]
	// written is since when whose rows were not trimmed.
	written grantCounts
}

// NewStore returns the store over a database that is on the latest schema.
func NewStore(db *dbutil.Database) *Store {
	s := &Store{db: db}
	s.grants = newBatch(s.writeGrants)
	return s
}

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
	putGrant = `
		INSERT INTO call_grant (sfu_room, identity, user_id, device_id, member_id, server_name, route,
		                        can_publish, may_create, issued_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (sfu_room, identity) DO UPDATE SET
			user_id = excluded.user_id, device_id = excluded.device_id, member_id = excluded.member_id,
			server_name = excluded.server_name, route = excluded.route, can_publish = excluded.can_publish,
			may_create = excluded.may_create, issued_at = excluded.issued_at, expires_at = excluded.expires_at,
			revoked = false`
)

// PutGrant records the session, if it is new, and the grant, replacing an
// earlier one of the same identity. It returns once that is committed; grants
// that come together share a commit.
func (s *Store) PutGrant(ctx context.Context, g GrantRow) error {
	if err := s.grants.put(ctx, g); err != nil {
		return fmt.Errorf("store grant: %w", err)
	}
	return nil
}

func (s *Store) writeGrants(ctx context.Context, grants []GrantRow) error {
	// In one order, whoever writes: replicas that lock the same rows crosswise
	// would block each other.
	slices.SortStableFunc(grants, func(a, b GrantRow) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Identity, b.Identity))
	})
	return s.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		for _, g := range grants {
			issued := g.IssuedAt.UnixMilli()
			ensured := sql.NullInt64{Int64: issued, Valid: g.Ensured}
			if _, err := s.db.Exec(ctx, putSession, g.Room, g.Slot.RoomID, g.Slot.SlotID, issued, ensured); err != nil {
				return err
			}
			if _, err := s.db.Exec(ctx, putGrant, g.Room, g.Identity, g.Member.UserID, g.Member.DeviceID, g.Member.ID,
				g.ServerName, g.Route, g.Publish, g.MayCreate, issued, g.ExpiresAt.UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
}

// Standing is what the rows say of one identity in one SFU room.
type Standing struct {
	// Granted: a token was given to it.
	Granted bool
	// Revoked: it was taken back and none was given since.
	Revoked bool
	// RevokedAt is when one was last taken back; zero if never. Tokens made
	// before that stay worthless even when a new one was given.
	RevokedAt time.Time
	// MayCreate: its holder may have the room made.
	MayCreate bool
	// RoomOpen: the SFU room was made and has not been closed.
	RoomOpen bool
}

const getStanding = `
	SELECT g.revoked, g.revoked_at, g.may_create, s.ensured_at
	FROM call_grant g JOIN call_session s ON s.sfu_room = g.sfu_room
	WHERE g.sfu_room = $1 AND g.identity = $2`

// Standing looks one identity up.
func (s *Store) Standing(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (Standing, error) {
	var revokedAt, ensuredAt sql.NullInt64
	standing := Standing{Granted: true}
	err := s.db.QueryRow(ctx, getStanding, room, who).Scan(&standing.Revoked, &revokedAt, &standing.MayCreate, &ensuredAt)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Standing{}, nil
	case err != nil:
		return Standing{}, fmt.Errorf("look up grant: %w", err)
	}
	if revokedAt.Valid {
		standing.RevokedAt = time.UnixMilli(revokedAt.Int64)
	}
	standing.RoomOpen = ensuredAt.Valid
	return standing, nil
}

const setEnsured = `UPDATE call_session SET ensured_at = $2, ended_at = NULL WHERE sfu_room = $1`

// RoomEnsured records that the SFU has the room.
func (s *Store) RoomEnsured(ctx context.Context, room matrixrtc.SFURoom, at time.Time) error {
	if _, err := s.db.Exec(ctx, setEnsured, room, at.UnixMilli()); err != nil {
		return fmt.Errorf("store SFU room: %w", err)
	}
	return nil
}

package focus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	// sessions are those whose row was written lately.
	sessions *recent
}

// NewStore returns the store over a database that is on the latest schema.
func NewStore(db *dbutil.Database) *Store {
	s := &Store{db: db, sessions: newRecent(sessionKept)}
	s.grants = newBatch(s.writeGrants)
	return s
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

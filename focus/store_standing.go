package focus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// Standing is what the rows say of one identity in one SFU room.
type Standing struct {
	// Granted: a token was given to it.
	Granted bool
	// Revoked: it was taken back and none was given since.
	Revoked bool
	// Term is that of the tokens that admit: 0 until one was taken back, then
	// the time of the last such, in milliseconds, or somewhat later.
	Term int64
	// Publish is what its holder may send.
	Publish matrixrtc.Sources
	// MayCreate: its holder may have the room made.
	MayCreate bool
	// EnsuredAt is when the SFU was last asked to have the room; zero when it has
	// reported since then that it closed it.
	EnsuredAt time.Time
	// SFU has the room; Epoch counts its moves.
	SFU   string
	Epoch int
	// UserID is who has it, ServerName whose rule counts for them, and ExpiresAt
	// until when its token is good.
	UserID     id.UserID
	ServerName string
	ExpiresAt  time.Time
	// Slot is what the room is for, and StartedBy the server whose user had it
	// made.
	Slot      matrixrtc.SlotKey
	StartedBy string
	// Verified: the user was in the room when it was given.
	Verified bool
}

// Living: who has a token of the right term may be in the room.
func (s Standing) Living() bool { return s.Granted && !s.Revoked }

// Holder is who has the grant.
func (s Standing) Holder(room matrixrtc.SFURoom, who matrixrtc.Identity) Holder {
	return Holder{Room: room, Identity: who, SFU: s.SFU, Slot: s.Slot, UserID: s.UserID, ServerName: s.ServerName, Publish: s.Publish}
}

// covers tells whether the ticket is from after the last revocation. One that
// names its term is compared exactly. One that does not was made by an SFU that
// drops the claim; of its time only the second is known, so one from the very
// second of the revocation counts as older.
func (s Standing) covers(t matrixrtc.Ticket) bool {
	if t.Term == matrixrtc.UnknownTerm {
		return s.Term == 0 || t.MadeAt.UnixMilli() > s.Term
	}
	return t.Term == s.Term
}

const getStanding = `
	SELECT g.revoked, g.revoked_at, g.can_publish, g.sources, g.may_create, s.ensured_at, s.sfu, s.epoch,
		g.user_id, g.server_name, g.expires_at, g.membership, s.room_id, s.slot_id, s.started_by
	FROM call_grant g JOIN call_session s ON s.sfu_room = g.sfu_room
	WHERE g.sfu_room = $1 AND g.identity = $2`

// Standing looks one identity up.
func (s *Store) Standing(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (Standing, error) {
	var revokedAt, ensuredAt sql.NullInt64
	var expiresAt int64
	var membership string
	var publish bool
	standing := Standing{Granted: true}
	err := s.db.QueryRow(ctx, getStanding, room, who).Scan(&standing.Revoked, &revokedAt, &publish, &standing.Publish,
		&standing.MayCreate, &ensuredAt, &standing.SFU, &standing.Epoch, &standing.UserID, &standing.ServerName, &expiresAt,
		&membership, &standing.Slot.RoomID, &standing.Slot.SlotID, &standing.StartedBy)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Standing{}, nil
	case err != nil:
		return Standing{}, fmt.Errorf("look up grant: %w", err)
	}
	standing.Publish = sourcesIn(publish, standing.Publish)
	standing.Term = revokedAt.Int64
	if ensuredAt.Valid {
		standing.EnsuredAt = time.UnixMilli(ensuredAt.Int64)
	}
	standing.ExpiresAt, standing.Verified = time.UnixMilli(expiresAt), membership == verified
	return standing, nil
}

// What lies ahead is from before a clock was set back.
const wasInUse = `
	SELECT EXISTS (SELECT 1 FROM call_participant p
		WHERE p.sfu_room = $1 AND (p.state = 'joined' OR p.left_at > $2 AND p.left_at < $3))`

// InUse tells whether somebody is in the room, or was so within that time.
func (s *Store) InUse(ctx context.Context, room matrixrtc.SFURoom, now time.Time, within time.Duration) (inUse bool, err error) {
	err = s.db.QueryRow(ctx, wasInUse, room, now.Add(-within).UnixMilli(), now.Add(within).UnixMilli()).Scan(&inUse)
	if err != nil {
		return false, fmt.Errorf("look up whether a room is in use: %w", err)
	}
	return inUse, nil
}

const setEnsured = `
	UPDATE call_session SET ensured_at = $2, ended_at = NULL, started_by = CASE WHEN ` + inUse + ` THEN started_by ELSE $3 END
	WHERE sfu_room = $1`

// RoomEnsured records that a user of the server has had the SFU make the room.
func (s *Store) RoomEnsured(ctx context.Context, room matrixrtc.SFURoom, server string, at time.Time) error {
	if _, err := s.db.Exec(ctx, setEnsured, room, at.UnixMilli(), server); err != nil {
		return fmt.Errorf("store SFU room: %w", err)
	}
	return nil
}

// For as long as the SFU has not closed it, as far as is known. What lies ahead is
// from before a clock was set back.
const setLookedOn = `
	UPDATE call_session SET ensured_at = $2 WHERE sfu_room = $1 AND (ensured_at < $2 OR ensured_at > $3)`

// RoomLookedOn records that the SFU had the room at that time, for people of whom
// no row says that they are in it. It is nothing new for who has started the call.
func (s *Store) RoomLookedOn(ctx context.Context, room matrixrtc.SFURoom, at time.Time) error {
	if _, err := s.db.Exec(ctx, setLookedOn, room, at.UnixMilli(), at.Add(emptyFor).UnixMilli()); err != nil {
		return fmt.Errorf("store that a room has onlookers: %w", err)
	}
	return nil
}

const (
	getSFU      = `SELECT sfu, epoch FROM call_session WHERE sfu_room = $1`
	getSession  = `SELECT sfu, created_at FROM call_session WHERE sfu_room = $1`
	moveSession = `UPDATE call_session SET sfu = $3, epoch = epoch + 1 WHERE sfu_room = $1 AND sfu = $2`
)

// SessionOf is the name of the SFU that has the room, and since when the room is
// known; both are zero when there is no row.
func (s *Store) SessionOf(ctx context.Context, room matrixrtc.SFURoom) (sfu string, since time.Time, err error) {
	var created int64
	switch err := s.db.QueryRow(ctx, getSession, room).Scan(&sfu, &created); {
	case errors.Is(err, sql.ErrNoRows):
		return "", time.Time{}, nil
	case err != nil:
		return "", time.Time{}, fmt.Errorf("look up session: %w", err)
	}
	return sfu, time.UnixMilli(created), nil
}

// MoveSession gives the room to another SFU, unless somebody else has moved it
// first, and returns where it is then.
func (s *Store) MoveSession(ctx context.Context, room matrixrtc.SFURoom, from, to string) (sfu string, epoch int, err error) {
	err = s.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		if _, err := s.db.Exec(ctx, moveSession, room, from, to); err != nil {
			return err
		}
		return s.db.QueryRow(ctx, getSFU, room).Scan(&sfu, &epoch)
	})
	if err != nil {
		return "", 0, fmt.Errorf("move session: %w", err)
	}
	return sfu, epoch, nil
}

// Revoked is one identity whose grant was taken back.
type Revoked struct {
	Room     matrixrtc.SFURoom
	Identity matrixrtc.Identity
	SFU      string
}

// The new term is the time, but never one that was before: clocks step.
const setRevoked = `
	UPDATE call_grant SET revoked = true,
		revoked_at = CASE WHEN revoked_at >= $1 THEN revoked_at + 1 ELSE $1 END
	WHERE (sfu_room = $2 OR $2 = '')
		AND (identity = $3 OR $3 = '')
		AND (user_id = $4 OR $4 = '')
		AND ($5 = '' OR sfu_room IN (SELECT sfu_room FROM call_session WHERE room_id = $5))
	RETURNING sfu_room, identity, (SELECT sfu FROM call_session s WHERE s.sfu_room = call_grant.sfu_room)`

// Revoke takes the grants back that w names, and returns whose they are.
func (s *Store) Revoke(ctx context.Context, w Whom, now time.Time) ([]Revoked, error) {
	rows, err := s.synced.Query(ctx, setRevoked, now.UnixMilli(), w.SFURoom, w.Identity, w.UserID, w.RoomID)
	all, err := dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (r Revoked, err error) {
		err = row.Scan(&r.Room, &r.Identity, &r.SFU)
		return r, err
	}, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("revoke: %w", err)
	}
	return all, nil
}

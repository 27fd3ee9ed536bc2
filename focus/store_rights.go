package focus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// sourcesIn reads the two columns of a grant. Rows of before sources were told
// apart have all or none.
func sourcesIn(publish bool, sources matrixrtc.Sources) matrixrtc.Sources {
	if !publish {
		return 0
	}
	return sources & matrixrtc.AllSources
}

const setPublish = `
	UPDATE call_grant SET can_publish = $3, sources = $4 WHERE sfu_room = $1 AND identity = $2 AND NOT revoked`

// SetPublish changes what a living grant lets its holder send, and tells whether
// there is one.
func (s *Store) SetPublish(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity, publish matrixrtc.Sources) (living bool, err error) {
	result, err := s.synced.Exec(ctx, setPublish, room, who, publish != 0, int(publish))
	if err != nil {
		return false, fmt.Errorf("store rights: %w", err)
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

const getConnected = `
	SELECT g.sfu_room, g.identity, s.sfu, s.room_id, s.slot_id, g.user_id, g.server_name, g.can_publish, g.sources
	FROM call_grant g JOIN call_session s ON s.sfu_room = g.sfu_room
	WHERE NOT g.revoked AND ($1 = '' OR s.room_id = $1)
		AND (g.sfu_room > $2 OR g.sfu_room = $2 AND g.identity > $3)
		AND EXISTS (SELECT 1 FROM call_participant p
			WHERE p.sfu_room = g.sfu_room AND p.identity = g.identity AND p.state = 'joined')
	ORDER BY g.sfu_room, g.identity LIMIT $4`

// Connected lists who is connected with a living grant, to the calls of the
// Matrix room, or to all for "", after the one named.
func (s *Store) Connected(ctx context.Context, room id.RoomID, after Holder, limit int) ([]Holder, error) {
	rows, err := s.db.Query(ctx, getConnected, room, after.Room, after.Identity, limit)
	holders, err := dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (h Holder, err error) {
		var publish bool
		err = row.Scan(&h.Room, &h.Identity, &h.SFU, &h.Slot.RoomID, &h.Slot.SlotID, &h.UserID, &h.ServerName, &publish, &h.Publish)
		h.Publish = sourcesIn(publish, h.Publish)
		return h, err
	}, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("list who is connected: %w", err)
	}
	return holders, nil
}

// seatKept is how long a place is kept for who was let in and whom the SFU has
// not reported: longer than LiveKit waits for the media of who comes.
const seatKept = 30 * time.Second

const (
	// The SFU's clock shows whole seconds. A place from the future is from before a
	// clock was set back, and would be kept until that time comes.
	hasSeat = `(EXISTS (SELECT 1 FROM call_participant p
			WHERE p.sfu_room = g.sfu_room AND p.identity = g.identity AND p.state = 'joined')
		OR g.admitted_at > $2 AND g.admitted_at < $4 AND NOT EXISTS (SELECT 1 FROM call_participant p
			WHERE p.sfu_room = g.sfu_room AND p.identity = g.identity AND p.joined_at > g.admitted_at - 1000))`
	countSeats = `
		SELECT COUNT(CASE WHEN g.identity = $3 THEN 1 END), COUNT(*)
		FROM call_grant g WHERE g.sfu_room = $1 AND NOT g.revoked AND ` + hasSeat
	setAdmitted = `UPDATE call_grant SET admitted_at = $3 WHERE sfu_room = $1 AND identity = $2`
)

// TakeSeat keeps a place in the room for who has one or finds one of the given
// number free; else it is [ErrFull]. Of several at once, who ask whatever
// process, no more get in than may.
func (s *Store) TakeSeat(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity, most int, now time.Time) error {
	err := s.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		if s.db.Dialect == dbutil.Postgres {
			// One after the other; SQLite has one writer anyway.
			if _, err := s.db.Exec(ctx, lockSession, room); err != nil {
				return err
			}
		}
		var own, taken int
		err := s.db.QueryRow(ctx, countSeats, room, now.Add(-seatKept).UnixMilli(), who, now.Add(seatKept).UnixMilli()).Scan(&own, &taken)
		switch {
		case err != nil:
			return err
		case own == 0 && taken >= most:
			return ErrFull
		}
		_, err = s.db.Exec(ctx, setAdmitted, room, who, now.UnixMilli())
		return err
	})
	if err != nil && !errors.Is(err, ErrFull) {
		return fmt.Errorf("keep a place in the call: %w", err)
	}
	return err
}

// RunningCall is a call in which somebody is.
type RunningCall struct {
	Room      matrixrtc.SFURoom
	SFU       string
	StartedAt time.Time
	// StartedBy is the server whose user started it; empty when that is not known.
	StartedBy string
}

const getRunning = `
	SELECT sfu_room, sfu, started_at, started_by FROM call_session
	WHERE started_at IS NOT NULL AND sfu_room > $1 AND ` + inUse + `
	ORDER BY sfu_room LIMIT $2`

// Running lists the calls that go on, in the order of their rooms, after the
// given one.
func (s *Store) Running(ctx context.Context, after matrixrtc.SFURoom, limit int) ([]RunningCall, error) {
	rows, err := s.db.Query(ctx, getRunning, after, limit)
	calls, err := dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (c RunningCall, err error) {
		var started int64
		err = row.Scan(&c.Room, &c.SFU, &started, &c.StartedBy)
		c.StartedAt = time.UnixMilli(started)
		return c, err
	}, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("list calls: %w", err)
	}
	return calls, nil
}

const endCall = `
	UPDATE call_session SET started_at = NULL, ensured_at = NULL, ended_at = $3 WHERE sfu_room = $1 AND started_at = $2`

// EndCall takes back all that was given for the call, in one step with its end,
// and returns whose it was; nobody's when the call is over already.
func (s *Store) EndCall(ctx context.Context, c RunningCall, now time.Time) (ended bool, revoked []Revoked, err error) {
	err = s.synced.DoTxn(ctx, nil, func(ctx context.Context) error {
		result, err := s.synced.Exec(ctx, endCall, c.Room, c.StartedAt.UnixMilli(), now.UnixMilli())
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err
		}
		ended = true
		revoked, err = s.Revoke(ctx, Whom{SFURoom: c.Room}, now)
		return err
	})
	if err != nil {
		return false, nil, fmt.Errorf("end call: %w", err)
	}
	return ended, revoked, nil
}

package focus

import (
	"context"
	"fmt"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"
)

// InCall is one person in the calls of one room.
type InCall struct {
	RoomID id.RoomID
	UserID id.UserID
}

// Who was put out already, and is not gone yet, is not asked for again.
const getInCalls = `
	SELECT DISTINCT s.room_id, g.user_id
	FROM call_participant p
	JOIN call_session s ON s.sfu_room = p.sfu_room
	JOIN call_grant g ON g.sfu_room = p.sfu_room AND g.identity = p.identity
	WHERE p.state = 'joined' AND NOT g.revoked
		AND (s.room_id > $1 OR s.room_id = $1 AND g.user_id > $2)
	ORDER BY s.room_id, g.user_id LIMIT $3`

// InCalls lists who is connected now, in the order of rooms and users, after
// the one named.
func (s *Store) InCalls(ctx context.Context, after InCall, limit int) ([]InCall, error) {
	rows, err := s.db.Query(ctx, getInCalls, after.RoomID, after.UserID, limit)
	people, err := dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (p InCall, err error) {
		err = row.Scan(&p.RoomID, &p.UserID)
		return p, err
	}, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("list who is in calls: %w", err)
	}
	return people, nil
}

const getHolders = `
	SELECT DISTINCT g.user_id FROM call_grant g JOIN call_session s ON s.sfu_room = g.sfu_room
	WHERE s.room_id = $1 AND NOT g.revoked ORDER BY g.user_id`

// Holders lists who holds a grant for a call of the Matrix room.
func (s *Store) Holders(ctx context.Context, room id.RoomID) ([]id.UserID, error) {
	rows, err := s.db.Query(ctx, getHolders, room)
	users, err := dbutil.NewRowIterWithError(rows, dbutil.ScanSingleColumn[id.UserID], err).AsList()
	if err != nil {
		return nil, fmt.Errorf("list who holds grants: %w", err)
	}
	return users, nil
}

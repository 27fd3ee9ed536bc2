package focus

import (
	"context"
	"fmt"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// WatchedRoom is an SFU room in which somebody is, or may come soon.
type WatchedRoom struct {
	Room matrixrtc.SFURoom
	SFU  string
	Slot matrixrtc.SlotKey
	// Joined are those who are in it, by the SFU's name of their connection.
	Joined map[string]WatchedParticipant
}

// WatchedParticipant is one of whom the rows say that they are in a room.
type WatchedParticipant struct {
	Identity matrixrtc.Identity
	// Living: they have a grant.
	Living bool
	// Publish is what it lets them send.
	Publish matrixrtc.Sources
	// UserID is who has it, ServerName whose rule counts for them.
	UserID     id.UserID
	ServerName string
}

const (
	watchedRooms = `
		SELECT s.sfu_room, s.sfu, s.room_id, s.slot_id FROM call_session s
		WHERE s.sfu_room > $1 AND (s.last_granted_at >= $2 OR s.ensured_at >= $2 OR EXISTS (
			SELECT 1 FROM call_participant p WHERE p.sfu_room = s.sfu_room AND p.state = 'joined'))
		ORDER BY s.sfu_room LIMIT $3`
	joinedIn = `
		SELECT p.participant_sid, p.identity, COALESCE(NOT g.revoked, false), COALESCE(g.can_publish, false), COALESCE(g.sources, 0),
			COALESCE(g.user_id, ''), COALESCE(g.server_name, '')
		FROM call_participant p LEFT JOIN call_grant g ON g.sfu_room = p.sfu_room AND g.identity = p.identity
		WHERE p.sfu_room = $1 AND p.state = 'joined'`
)

// Watched lists up to limit rooms in which somebody is, for which a token was given,
// or in which onlookers were found, since then, in the order of their names, after
// the given one.
func (s *Store) Watched(ctx context.Context, after matrixrtc.SFURoom, since time.Time, limit int) ([]WatchedRoom, error) {
	rows, err := s.db.Query(ctx, watchedRooms, after, since.UnixMilli(), limit)
	rooms, err := dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (WatchedRoom, error) {
		room := WatchedRoom{Joined: map[string]WatchedParticipant{}}
		err := row.Scan(&room.Room, &room.SFU, &room.Slot.RoomID, &room.Slot.SlotID)
		return room, err
	}, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("list rooms in use: %w", err)
	}
	for _, room := range rooms {
		if err := s.joined(ctx, room); err != nil {
			return nil, fmt.Errorf("list participants: %w", err)
		}
	}
	return rooms, nil
}

func (s *Store) joined(ctx context.Context, room WatchedRoom) error {
	type seat struct {
		sid string
		who WatchedParticipant
	}
	rows, err := s.db.Query(ctx, joinedIn, room.Room)
	return dbutil.NewRowIterWithError(rows, func(row dbutil.Scannable) (p seat, err error) {
		var publish bool
		err = row.Scan(&p.sid, &p.who.Identity, &p.who.Living, &publish, &p.who.Publish, &p.who.UserID, &p.who.ServerName)
		p.who.Publish = sourcesIn(publish, p.who.Publish)
		return p, err
	}, err).Iter(func(p seat) (bool, error) {
		room.Joined[p.sid] = p.who
		return true, nil
	})
}

package focus

import (
	"context"
	"fmt"
	"time"

	"passerelle/focus/matrixrtc"
)

// WatchedRoom is an SFU room in which somebody is, or may come soon.
type WatchedRoom struct {
	Room matrixrtc.SFURoom
	SFU  string
	// Joined are those who are in it, by the SFU's name of their connection.
	Joined map[string]WatchedParticipant
}

// WatchedParticipant is one of whom the rows say that they are in a room.
type WatchedParticipant struct {
	Identity matrixrtc.Identity
	// Living: they have a grant.
	Living bool
}

const (
	watchedRooms = `
		SELECT s.sfu_room, s.sfu FROM call_session s
		WHERE s.sfu_room > $1 AND (s.last_granted_at >= $2 OR EXISTS (
			SELECT 1 FROM call_participant p WHERE p.sfu_room = s.sfu_room AND p.state = 'joined'))
		ORDER BY s.sfu_room LIMIT $3`
	joinedIn = `
		SELECT p.participant_sid, p.identity, COALESCE(NOT g.revoked, false)
		FROM call_participant p LEFT JOIN call_grant g ON g.sfu_room = p.sfu_room AND g.identity = p.identity
		WHERE p.sfu_room = $1 AND p.state = 'joined'`
)

// Watched lists up to limit rooms in which somebody is, or for which a token
// was given since then, in the order of their names, after the given one.
func (s *Store) Watched(ctx context.Context, after matrixrtc.SFURoom, since time.Time, limit int) ([]WatchedRoom, error) {
	var rooms []WatchedRoom
	rows, err := s.db.Query(ctx, watchedRooms, after, since.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("list rooms in use: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		room := WatchedRoom{Joined: map[string]WatchedParticipant{}}
		if err := rows.Scan(&room.Room, &room.SFU); err != nil {
			return nil, fmt.Errorf("list rooms in use: %w", err)
		}
		rooms = append(rooms, room)
	}
	if err := rows.Err(); err != nil {
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
	rows, err := s.db.Query(ctx, joinedIn, room.Room)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var sid string
		var who WatchedParticipant
		if err := rows.Scan(&sid, &who.Identity, &who.Living); err != nil {
			return err
		}
		room.Joined[sid] = who
	}
	return rows.Err()
}

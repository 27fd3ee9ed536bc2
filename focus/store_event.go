package focus

import (
	"context"
	"fmt"
	"time"

	"passerelle/focus/matrixrtc"
)

const (
	putSeen = `INSERT INTO webhook_seen (event_key, seen_at) VALUES ($1, $2) ON CONFLICT (event_key) DO NOTHING`

	// A row exists for rooms of ours alone; events of other rooms change none.
	knowsSession = `SELECT COUNT(*) FROM call_session WHERE sfu_room = $1`

	knowsParticipant = `SELECT COUNT(*) FROM call_participant WHERE sfu_room = $1 AND participant_sid = $2`

	// A left row is not opened again by a report: the SFU makes a new SID for
	// every connection, so a join that arrives after its leave is late, not new.
	putJoined = `
		INSERT INTO call_participant (sfu_room, participant_sid, identity, state, joined_at)
		VALUES ($1, $2, $3, 'joined', $4)
		ON CONFLICT (sfu_room, participant_sid) DO NOTHING`
	putLeft = `
		INSERT INTO call_participant (sfu_room, participant_sid, identity, state, joined_at, left_at, leave_reason)
		VALUES ($1, $2, $3, 'left', $4, $4, $5)
		ON CONFLICT (sfu_room, participant_sid) DO UPDATE SET
			state = 'left', left_at = excluded.left_at, leave_reason = excluded.leave_reason
		WHERE call_participant.state = 'joined'`
	// Each attempt to connect leaves a row, and all others have to pass over one
	// participant's. Those that a late report may still be of stay; what lies ahead of
	// them is from before a clock was set back, and goes first.
	trimLeft = `
		DELETE FROM call_participant WHERE sfu_room = $1 AND (left_at < $5 OR left_at > $6) AND participant_sid IN (
			SELECT p.participant_sid FROM call_participant p
			WHERE p.sfu_room = $1 AND p.identity = $2 AND p.state = 'left' AND p.participant_sid <> $3
			ORDER BY p.left_at > $6, p.left_at DESC, p.participant_sid
			LIMIT 1000000000 OFFSET $4)`
	isJoined = `
		SELECT COUNT(*) > 0 FROM call_participant WHERE sfu_room = $1 AND participant_sid = $2 AND state = 'joined'`
	// The SFU's clock shows whole seconds. Who came later is in a room of the same
	// name that was made after the one that finished.
	closeRoom = `
		UPDATE call_participant SET state = 'left', left_at = $2, leave_reason = 'ROOM_CLOSED'
		WHERE sfu_room = $1 AND state = 'joined' AND joined_at < $3`
	// Nobody reported these ends: they were concluded, and the SFU may know better.
	reopen = `
		UPDATE call_participant SET state = 'joined', left_at = NULL, leave_reason = NULL
		WHERE sfu_room = $1 AND participant_sid = $2 AND state = 'left' AND left_at < $3
			AND leave_reason IN ('` + ReasonMissing + `', 'ROOM_CLOSED', '` + reasonRestarted + `')`
	// A call begins when somebody joins a room in which nobody has been for a
	// while: nobody says so reliably when one has ended. Who comes first has
	// started it, or who had the room made for those who may not.
	startCall = `
		UPDATE call_session SET started_at = $2, started_by = COALESCE((
			SELECT g.server_name FROM call_grant g
			WHERE g.sfu_room = call_session.sfu_room AND g.identity = $4 AND g.may_create), started_by)
		WHERE sfu_room = $1 AND (started_at IS NULL OR NOT ` + inUse + `
			AND sfu_room NOT IN (SELECT p.sfu_room FROM call_participant p WHERE p.left_at > $3))`
	// A room that was made again after the one that finished stays open.
	endSession = `
		UPDATE call_session SET ended_at = $2, ensured_at = NULL, started_at = NULL
		WHERE sfu_room = $1 AND (ensured_at IS NULL OR ensured_at < $3)`
	closeEveryone = `
		UPDATE call_participant SET state = 'left', left_at = $1, leave_reason = $2 WHERE state = 'joined'`
)

// emptyFor is how long nobody must have been in a room for who joins it then to
// begin another call: longer than all take to come back after a fault.
const emptyFor = time.Minute

const (
	// keptLeft is how many connections of one participant that have ended are kept
	// in any case: enough to tell an operator what happened.
	keptLeft = 10
	// lateFor is for how long all of them are kept: without the row a report of the
	// join that comes again, or late, makes a participant who is not there. LiveKit
	// drops reports that are older than 30 s. The door lets one participant come 60
	// times at once and then each 2 s, so that there are some 120 rows at most.
	lateFor = 2 * time.Minute
)

// RecordEvent stores what the SFU reported, once. It reports whether that is
// how things are now: it is not for rooms that are not ours, and for a join
// whose leave has arrived before it. A repetition is as good as the first.
func (s *Store) RecordEvent(ctx context.Context, e matrixrtc.SFUEvent, now time.Time) (current bool, err error) {
	err = s.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		var sessions int
		if err := s.db.QueryRow(ctx, knowsSession, e.Room).Scan(&sessions); err != nil || sessions == 0 {
			return err
		}
		if err := s.applyEvent(ctx, e, now); err != nil {
			return err
		}
		current = true
		if e.Type != matrixrtc.ParticipantJoined {
			return nil
		}
		return s.db.QueryRow(ctx, isJoined, e.Room, e.ParticipantSID).Scan(&current)
	})
	return current && err == nil, err
}

// applyEvent changes nothing when the event is a repetition. Of a participant's the
// row tells that; it is as good as a row of the event's own, of which somebody who
// connects again and again would make any number.
func (s *Store) applyEvent(ctx context.Context, e matrixrtc.SFUEvent, now time.Time) error {
	switch e.Type {
	case matrixrtc.ParticipantJoined:
		return s.applyJoined(ctx, e)
	case matrixrtc.ParticipantLeft, matrixrtc.ParticipantAborted:
		return s.applyLeft(ctx, e)
	case matrixrtc.RoomFinished:
		return s.applyFinished(ctx, e, now)
	}
	return nil
}

func (s *Store) applyJoined(ctx context.Context, e matrixrtc.SFUEvent) error {
	at, known := e.At.UnixMilli(), 0
	err := s.db.QueryRow(ctx, knowsParticipant, e.Room, e.ParticipantSID).Scan(&known)
	if err != nil || known > 0 {
		return err
	}
	if _, err := s.db.Exec(ctx, startCall, e.Room, at, e.At.Add(-emptyFor).UnixMilli(), e.Identity); err != nil {
		return err
	}
	_, err = s.db.Exec(ctx, putJoined, e.Room, e.ParticipantSID, e.Identity, at)
	return err
}

func (s *Store) applyLeft(ctx context.Context, e matrixrtc.SFUEvent) error {
	if fresh, err := s.changes(ctx, putLeft, e.Room, e.ParticipantSID, e.Identity, e.At.UnixMilli(), e.Reason); err != nil || !fresh {
		return err
	}
	// By the SFU's clock, as the ends are.
	_, err := s.db.Exec(ctx, trimLeft, e.Room, e.Identity, e.ParticipantSID, keptLeft-1,
		e.At.Add(-lateFor).UnixMilli(), e.At.Add(lateFor).UnixMilli())
	return err
}

func (s *Store) applyFinished(ctx context.Context, e matrixrtc.SFUEvent, now time.Time) error {
	// LiveKit reuses an event's ID for what belongs together, so the ID alone does
	// not tell a repetition.
	key := fmt.Sprintf("%s\n%s\n%s", e.ID, e.Type, e.Room)
	if fresh, err := s.changes(ctx, putSeen, key, now.UnixMilli()); err != nil || !fresh {
		return err
	}
	at, second := e.At.UnixMilli(), e.At.Add(time.Second).UnixMilli()
	if _, err := s.db.Exec(ctx, closeRoom, e.Room, at, second); err != nil {
		return err
	}
	_, err := s.db.Exec(ctx, endSession, e.Room, at, second)
	return err
}

// changes executes a statement and tells whether it has changed a row.
func (s *Store) changes(ctx context.Context, statement string, values ...any) (bool, error) {
	result, err := s.db.Exec(ctx, statement, values...)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// Reopen takes the end of a connection back that was concluded before the given
// time, when the SFU did not have it any more as it seemed.
func (s *Store) Reopen(ctx context.Context, room matrixrtc.SFURoom, sid string, before time.Time) error {
	if _, err := s.db.Exec(ctx, reopen, room, sid, before.UnixMilli()); err != nil {
		return fmt.Errorf("take back that a participant has left: %w", err)
	}
	return nil
}

// CloseParticipants records that everybody who was connected is not any more.
func (s *Store) CloseParticipants(ctx context.Context, reason string, now time.Time) error {
	_, err := s.db.Exec(ctx, closeEveryone, now.UnixMilli(), reason)
	return err
}

// Kept says how long rows stay after they are of no more use: long enough for
// an operator who looks into yesterday's trouble, no longer.
const (
	keptSeen  = time.Hour
	keptGrant = 24 * time.Hour
)

const (
	sweepSeen = `DELETE FROM webhook_seen WHERE seen_at < $1`
	// With a row goes its term, and then tokens of before its revocation are as
	// good as those of after; so it stays until none of them lives.
	sweepGrants = `
		DELETE FROM call_grant WHERE expires_at < $1 AND COALESCE(revoked_at, 0) < $1 AND NOT EXISTS (
			SELECT 1 FROM call_participant p
			WHERE p.sfu_room = call_grant.sfu_room AND p.identity = call_grant.identity AND p.state = 'joined')`
	sweepParticipants = `DELETE FROM call_participant WHERE state = 'left' AND left_at < $1`
	sweepSessions     = `
		DELETE FROM call_session WHERE last_granted_at < $1
			AND NOT EXISTS (SELECT 1 FROM call_grant g WHERE g.sfu_room = call_session.sfu_room)
			AND NOT EXISTS (SELECT 1 FROM call_participant p WHERE p.sfu_room = call_session.sfu_room)`
)

// Sweep deletes what is of no more use.
func (s *Store) Sweep(ctx context.Context, now time.Time) error {
	day := now.Add(-keptGrant).UnixMilli()
	return s.db.DoTxn(ctx, nil, func(ctx context.Context) error {
		if _, err := s.db.Exec(ctx, sweepSeen, now.Add(-keptSeen).UnixMilli()); err != nil {
			return fmt.Errorf("sweep webhooks: %w", err)
		}
		for _, statement := range []string{sweepGrants, sweepParticipants, sweepSessions} {
			if _, err := s.db.Exec(ctx, statement, day); err != nil {
				return fmt.Errorf("sweep: %w", err)
			}
		}
		return nil
	})
}

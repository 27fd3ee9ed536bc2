package focus

import (
	"context"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"passerelle/focus/matrixrtc"
)

// Reports of an SFU are lost, late and out of order (LiveKit drops those older
// than 30 s). So it is asked as well, and what it does not know of any more is
// gone. But its answers lie for a moment too: one miss says nothing.
const (
	// watchEvery is how often the SFUs are asked; up to half of it is added at
	// random.
	watchEvery = 8 * time.Second
	// missedFor is how long a participant must be missing, in two answers at
	// least.
	missedFor = 5 * time.Second
	// watchFresh is for how long after a grant, or after onlookers were found in it,
	// a room is asked for, when no row says that somebody is in it.
	watchFresh = 5 * time.Minute
	// watchRooms bounds the rooms of one round; the next goes on from there.
	watchRooms = 500
	// watchAtOnce bounds the questions at one time.
	watchAtOnce = 4
)

// miss names one connection that was in the rows and not in an answer.
type miss struct {
	room matrixrtc.SFURoom
	sid  string
}

// misses are when each was first missed. Only the watch uses them.
type misses struct {
	// A pass over all rooms may take several rounds: those of the one before, and
	// those of this one, in which each room has its turn once.
	before, now map[miss]time.Time
}

// pass begins another pass.
func (m *misses) pass() { m.before, m.now = m.now, map[miss]time.Time{} }

// watch asks for the rooms in use, until ctx is done.
func (s *Service) watch(ctx context.Context) error {
	var after matrixrtc.SFURoom
	return s.repeat(ctx, watchEvery, "Who is in the calls could not be compared; tried again soon", func(ctx context.Context) (err error) {
		after, err = s.Reconcile(ctx, after)
		return err
	})
}

// Reconcile asks the SFUs once who is there, in the rooms that come after the
// named one, corrects the rows, and removes who has no living grant. It returns
// where the next round starts: empty for the beginning. It must not be called
// while it, or [Service.Run], runs.
func (s *Service) Reconcile(ctx context.Context, after matrixrtc.SFURoom) (next matrixrtc.SFURoom, err error) {
	began := s.now()
	// The rows first: who comes after that is new in the answer, not missing.
	rooms, err := s.store.Watched(ctx, after, s.now().Add(-watchFresh), watchRooms)
	if err != nil {
		return after, err
	}
	if len(rooms) == watchRooms {
		next = rooms[len(rooms)-1].Room
	}
	answers := make([][]matrixrtc.Participant, len(rooms))
	failures := make([]error, len(rooms))
	var asking errgroup.Group
	asking.SetLimit(watchAtOnce)
	for i, room := range rooms {
		asking.Go(func() error {
			sfu := s.sfus[room.SFU]
			if sfu == nil {
				// This process does not have it any more; the door would take them
				// to this one.
				sfu = s.sfus[s.home]
			}
			answers[i], failures[i] = sfu.Participants(ctx, room.Room)
			return nil
		})
	}
	_ = asking.Wait()
	if after == "" || s.misses.now == nil {
		s.misses.pass()
	}
	for i, room := range rooms {
		if failures[i] != nil {
			err = failures[i]
			s.keepMisses(room)
			continue
		}
		if failure := s.compare(ctx, room, answers[i], began); failure != nil {
			err = failure
		}
	}
	return next, err
}

// keepMisses carries over what was missed in a room that could not be asked.
func (s *Service) keepMisses(room WatchedRoom) {
	for sid := range room.Joined {
		key := miss{room.Room, sid}
		if since, ok := s.misses.before[key]; ok {
			s.misses.now[key] = since
		}
	}
}

// compare holds one answer, to a question from after began, against the rows.
func (s *Service) compare(ctx context.Context, room WatchedRoom, present []matrixrtc.Participant, began time.Time) error {
	missing := room.Joined
	noted := len(missing) > 0 // the rows say already that the call goes on
	for _, p := range present {
		if !p.Joined {
			living, err := s.recheckOnlooker(ctx, room.Room, p)
			if living && !noted {
				// From before the question: the SFU may close the room after its answer.
				noted, err = true, errors.Join(err, s.store.RoomLookedOn(ctx, room.Room, began))
			}
			if err != nil {
				return err
			}
			continue
		}
		if known, ok := missing[p.SID]; ok {
			delete(missing, p.SID)
			if known.Living {
				if err := s.keepTo(ctx, room, p, known); err != nil {
					return err
				}
				continue
			}
			if err := s.recheck(ctx, room.Room, p.Identity, p.JoinedAt, p.Publish); err != nil {
				return err
			}
			continue
		}
		if err := s.store.Reopen(ctx, room.Room, p.SID, began); err != nil {
			return err
		}
		err := s.found(ctx, matrixrtc.SFUEvent{
			ID: "poll", Type: matrixrtc.ParticipantJoined, Room: room.Room, At: p.JoinedAt,
			Identity: p.Identity, ParticipantSID: p.SID, Publish: p.Publish,
		})
		if err != nil {
			return err
		}
	}
	return s.missed(ctx, room.Room, missing)
}

// missed takes in who was not in an answer, by their connections.
func (s *Service) missed(ctx context.Context, room matrixrtc.SFURoom, missing map[string]WatchedParticipant) error {
	now := s.now()
	for sid, who := range missing {
		key := miss{room, sid}
		since, again := s.misses.before[key]
		if !again {
			since = now
		}
		if now.Sub(since) < missedFor {
			s.misses.now[key] = since
			continue
		}
		err := s.found(ctx, matrixrtc.SFUEvent{
			// The same may be concluded again, once it was taken back.
			ID: "poll " + strconv.FormatInt(now.UnixMilli(), 10), Type: matrixrtc.ParticipantLeft, Room: room, At: now,
			Identity: who.Identity, ParticipantSID: sid, Reason: ReasonMissing,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ReasonMissing is the reason of those whose leave the SFU did not report.
const ReasonMissing = "MISSING"

func (s *Service) found(ctx context.Context, e matrixrtc.SFUEvent) error {
	what := "left"
	if e.Type == matrixrtc.ParticipantJoined {
		what = "joined"
	}
	s.metrics.corrected.WithLabelValues(what).Inc()
	return s.HandleSFUEvent(ctx, e)
}

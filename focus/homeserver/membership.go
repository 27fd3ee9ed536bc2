package homeserver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/singleflight"
	"maunium.net/go/mautrix/id"
)

const (
	// freshFor is how long a "yes" counts. A client asks two to four times to
	// join one call, so it saves most questions; and it is the longest that
	// somebody who was thrown out can still be given a token. A "no" never
	// counts twice: who joins the room may call at once.
	freshFor = 5 * time.Second
	// maxAnswers bounds how many answers are kept.
	maxAnswers = 10_000
	// raceFor is how long the join of another server's user may be on its way
	// to us when the user already asks for a token: joins travel from server
	// to server, requests go straight.
	raceFor = 3 * time.Second
)

// errMisnamed is returned when the homeserver is not called what we call it.
var errMisnamed = errors.New("the homeserver is called otherwise than homeserver.server_name says")

// Membership says who is in a room, as our own homeserver sees it. It is safe
// for concurrent use.
type Membership struct {
	client *Client
	server string
	log    zerolog.Logger
	asking singleflight.Group
	races  races
	silent atomic.Bool // the last question had no answer
	// misnamed: it was said that the homeserver has another name than server.
	misnamed atomic.Bool

	mu      sync.Mutex
	answers map[string]time.Time // until when the "yes" counts
	asked   uint64               // counts questions
	under   map[string]*underWay
}

// underWay are the questions under way that are the same. They are answered in
// any order, and the one that was asked last counts.
type underWay struct {
	questions int
	// said is the number of the last question that is answered, and yes what was.
	said uint64
	yes  bool
}

// NewMembership returns the membership as the homeserver named server sees it.
func NewMembership(client *Client, server string, log zerolog.Logger) *Membership {
	return &Membership{
		client: client, server: server, log: log,
		races: races{of: map[string]int{}}, answers: map[string]time.Time{}, under: map[string]*underWay{},
	}
}

// Joined tells whether the user is joined to the room now, or was within the
// last five seconds. An error means that it is not known. It asks for up to
// three seconds about users of other servers, whose join may be on its way.
func (m *Membership) Joined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	key := string(room) + "\n" + string(user) // no ID holds a line break
	if m.fresh(key) {
		return true, nil
	}
	for {
		// It is asked in the goroutine of who comes first, which is there already:
		// one of its own would cost as much as a twentieth of a token.
		answer, err, _ := m.asking.Do(key, func() (any, error) {
			joined, err := m.find(ctx, key, room, user)
			if err != nil && ctx.Err() != nil {
				err = fmt.Errorf("%w (%w)", errGivenUp, err)
			}
			return joined, err
		})
		if errors.Is(err, errGivenUp) && ctx.Err() == nil {
			continue // who asked for all has given up, and the next one asks
		}
		joined, _ := answer.(bool)
		return joined, err
	}
}

// errGivenUp is for a question whose asker does not wait for its answer.
var errGivenUp = errors.New("the question was given up")

// Still is Joined for who was in the room a moment ago: it is asked once, and a
// join on its way is none.
func (m *Membership) Still(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	key := string(room) + "\n" + string(user)
	if m.fresh(key) {
		return true, nil
	}
	return m.once(ctx, key, room, user)
}

// Confirm is Joined by one question, asked now: what was known before does not
// count, and a join on its way is none.
func (m *Membership) Confirm(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	return m.once(ctx, string(room)+"\n"+string(user), room, user)
}

// Here tells whether anybody of our own server is joined to the room. An error
// means that it is not known. That nobody is counts only where the homeserver says
// that it has that name: of one that is written wrongly nobody is in any room.
func (m *Membership) Here(ctx context.Context, room id.RoomID) (bool, error) {
	here, err := m.client.ServerJoined(ctx, room, m.server)
	if err != nil || here {
		return here, err
	}
	name, err := m.client.ServerName(ctx)
	switch {
	case err != nil:
		return false, fmt.Errorf("ask the homeserver what it is called: %w", err)
	case name != m.server:
		if !m.misnamed.Swap(true) {
			m.log.Error().Str("is_called", name).Str("taken_for", m.server).
				Msg("The homeserver is called otherwise than homeserver.server_name says: write its name there; until then the calls of a room that it has left go on")
		}
		return false, errMisnamed
	}
	return false, nil
}

// Present tells whether anybody of another server is joined to the room, or was
// within the last five seconds. An error means that it is not known.
func (m *Membership) Present(ctx context.Context, room id.RoomID, server string) (bool, error) {
	key := string(room) + "\n" + server // a user's begins with an @ there
	if m.fresh(key) {
		return true, nil
	}
	present, err := m.put(key, func() (bool, error) { return m.client.ServerJoined(ctx, room, server) })
	if err != nil {
		return false, fmt.Errorf("ask the homeserver who is in the room: %w", err)
	}
	return present, nil
}

// find asks, and where a join may be on its way asks again. What the homeserver
// withholds takes as long as its no: it says no of the rooms alone that it lets
// us see.
func (m *Membership) find(ctx context.Context, key string, room id.RoomID, user id.UserID) (bool, error) {
	began := time.Now()
	joined, err := m.once(ctx, key, room, user)
	if joined || !mayChange(err) || m.isLocal(user) {
		return joined, err
	}
	leave, ok := m.races.enter(user)
	if !ok {
		return false, err
	}
	defer leave()
	for pause := 100 * time.Millisecond; !joined && mayChange(err); pause = min(2*pause, time.Second) {
		// Half of the pause to one and a half: clients that were invited
		// together ask together.
		wait := pause/2 + rand.N(pause)
		if time.Since(began)+wait > raceFor {
			return false, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false, ctx.Err()
		}
		joined, err = m.once(ctx, key, room, user)
	}
	return joined, err
}

// mayChange tells a no, and an answer that is withheld, from one that failed.
func mayChange(err error) bool {
	refusal, ok := errors.AsType[*Refusal](err)
	return err == nil || ok && refusal.Withheld()
}

// isLocal: a user ID's server is all after its first colon.
func (m *Membership) isLocal(user id.UserID) bool {
	_, server, _ := strings.Cut(string(user), ":")
	return server == m.server
}

// once asks once and keeps a "yes".
func (m *Membership) once(ctx context.Context, key string, room id.RoomID, user id.UserID) (bool, error) {
	joined, err := m.put(key, func() (bool, error) {
		joined, err := m.client.IsJoined(ctx, room, user)
		if ctx.Err() == nil {
			m.note(err) // of those who were patient
		}
		return joined, err
	})
	if err != nil {
		return false, fmt.Errorf("ask the homeserver who is in the room: %w", err)
	}
	return joined, nil
}

// put puts a question, and remembers a "yes" for a while, and no "no". Where the
// same was asked later and answered sooner, that is the answer: an old "yes" does
// not come back after a "no".
func (m *Membership) put(key string, question func() (bool, error)) (bool, error) {
	asked := time.Now()
	m.mu.Lock()
	m.asked++
	number := m.asked
	u := m.under[key]
	if u == nil {
		u = &underWay{}
		m.under[key] = u
	}
	u.questions++
	m.mu.Unlock()

	yes, err := question()

	m.mu.Lock()
	defer m.mu.Unlock()
	if u.questions--; u.questions == 0 {
		delete(m.under, key)
	}
	switch {
	case err != nil:
		return false, err
	case number < u.said:
		return u.yes, nil
	}
	u.said, u.yes = number, yes
	if !yes {
		delete(m.answers, key)
		return false, nil
	}
	m.makeRoom(asked)
	m.answers[key] = asked.Add(freshFor)
	return true, nil
}

func (m *Membership) fresh(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Before(m.answers[key])
}

// makeRoom forgets old answers, and all when that is not enough: a question
// more costs less than a list that grows.
func (m *Membership) makeRoom(now time.Time) {
	if len(m.answers) < maxAnswers {
		return
	}
	for key, until := range m.answers {
		if now.After(until) {
			delete(m.answers, key)
		}
	}
	if len(m.answers) >= maxAnswers {
		clear(m.answers)
	}
}

// note says in the log, once, that the homeserver fell silent or speaks again.
func (m *Membership) note(err error) {
	switch was := m.silent.Swap(err != nil); {
	case err != nil && !was:
		m.log.Warn().Err(err).Msg("The homeserver does not say who is in a room: until it does, only those who have a token get another")
	case err == nil && was:
		m.log.Info().Msg("The homeserver says again who is in a room")
	}
}

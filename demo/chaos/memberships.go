package chaos

import (
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
)

// memberships are what the other ministry's homeserver has seen, and when.
type memberships struct {
	mu   sync.Mutex
	seen map[id.EventID]time.Time
	last map[string]synapse.Membership // by state key
}

func newMemberships() *memberships {
	return &memberships{seen: map[id.EventID]time.Time{}, last: map[string]synapse.Membership{}}
}

func (m *memberships) note(at time.Time, event synapse.Membership) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.seen[event.EventID]; known {
		return
	}
	m.seen[event.EventID] = at
	m.last[event.StateKey] = event
}

// left says whether the last that was seen of a device is that it has left.
func (m *memberships) left(stateKey string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, known := m.last[stateKey]
	return known && !last.Joined
}

// seenAt is when the event was seen, zero if never.
func (m *memberships) seenAt(event id.EventID) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[event]
}

package matrixrtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"maunium.net/go/mautrix/id"
)

const (
	// CreatorLevel is the power of who created a room of version 12 or later:
	// above every level that can be written down.
	CreatorLevel = math.MaxInt64
	// maxLevel is the largest integer of canonical JSON; the least is -maxLevel.
	maxLevel = 1<<53 - 1
	// maxContent bounds an event's content: no event is larger.
	maxContent = 64 << 10

	// What changed with which room version.
	creatorIsSender   = 11 // before it stands in the content
	creatorsRankAbove = 12 // before they are in users, with 100 or so
	levelsAreIntegers = 10 // before texts that hold one are taken, too
	jsonIsCanonical   = 6  // before fractions are cut off
)

// Powers is who may send what to a Matrix room: the content of its
// m.room.create and m.room.power_levels (client-server API), read as the room's
// version has it (room versions 1 to 12). Room IDs are no part of it: those of
// version 12 name no server.
type Powers struct {
	creators                                  map[id.UserID]bool // from version 12 on
	users                                     map[id.UserID]int64
	events                                    map[string]int64
	usersDefault, eventsDefault, stateDefault int64
}

// rawLevels is the content of m.room.power_levels, as far as it counts here.
type rawLevels struct {
	Users         map[id.UserID]json.RawMessage `json:"users"`
	UsersDefault  json.RawMessage               `json:"users_default"`
	Events        map[string]json.RawMessage    `json:"events"`
	EventsDefault json.RawMessage               `json:"events_default"`
	StateDefault  json.RawMessage               `json:"state_default"`
}

// ParsePowers reads the contents of both events, and who sent m.room.create.
// Without levels, for a room that has no such event, defaults are those of the
// specification. A version that is no number is an error, since nobody knows
// what counts there; those after 12 are read as 12.
func ParsePowers(createdBy id.UserID, create, levels json.RawMessage) (*Powers, error) {
	if len(create) > maxContent || len(levels) > maxContent {
		return nil, errors.New("the content is larger than an event can be")
	}
	var room struct {
		Version    *string     `json:"room_version"`
		Creator    id.UserID   `json:"creator"`
		Additional []id.UserID `json:"additional_creators"`
	}
	if err := json.Unmarshal(create, &room); err != nil {
		return nil, fmt.Errorf("read m.room.create: %w", err)
	}
	version := 1
	if room.Version != nil {
		var err error
		if version, err = strconv.Atoi(*room.Version); err != nil || version < 1 {
			return nil, fmt.Errorf("the room version %q is not known", *room.Version)
		}
	}
	if version < creatorIsSender {
		createdBy = room.Creator
	}
	p := &Powers{creators: map[id.UserID]bool{}, users: map[id.UserID]int64{}, events: map[string]int64{}}
	if version >= creatorsRankAbove {
		p.creators[createdBy] = true
		for _, creator := range room.Additional {
			p.creators[creator] = true
		}
	}
	if len(levels) == 0 {
		p.users[createdBy] = 100
		return p, nil
	}
	return p, p.read(levels, version)
}

func (p *Powers) read(levels json.RawMessage, version int) error {
	var raw rawLevels
	if err := json.Unmarshal(levels, &raw); err != nil {
		return fmt.Errorf("read m.room.power_levels: %w", err)
	}
	p.stateDefault = 50
	for name, l := range map[string]struct {
		raw  json.RawMessage
		into *int64
	}{
		"users_default":  {raw.UsersDefault, &p.usersDefault},
		"events_default": {raw.EventsDefault, &p.eventsDefault},
		"state_default":  {raw.StateDefault, &p.stateDefault},
	} {
		if l.raw == nil {
			continue
		}
		level, err := parseLevel(l.raw, version)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*l.into = level
	}
	for user, text := range raw.Users {
		level, err := parseLevel(text, version)
		if err != nil {
			return fmt.Errorf("users: %w", err)
		}
		p.users[user] = level
	}
	for kind, text := range raw.Events {
		level, err := parseLevel(text, version)
		if err != nil {
			return fmt.Errorf("events: %w", err)
		}
		p.events[kind] = level
	}
	return nil
}

var errLevel = errors.New("a power level is no number that this room version takes")

// parseLevel reads one level.
func parseLevel(raw json.RawMessage, version int) (int64, error) {
	text := string(raw)
	if strings.HasPrefix(text, `"`) {
		if version >= levelsAreIntegers {
			return 0, errLevel
		}
		if err := json.Unmarshal(raw, &text); err != nil {
			return 0, errLevel
		}
		text = strings.TrimSpace(text)
	} else if version < jsonIsCanonical {
		if whole, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(whole) <= maxLevel {
			return int64(whole), nil
		}
	}
	level, err := strconv.ParseInt(text, 10, 64)
	if err != nil || level > maxLevel || level < -maxLevel {
		return 0, errLevel
	}
	return level, nil
}

// Of is the user's power level, or [CreatorLevel].
func (p *Powers) Of(user id.UserID) int64 {
	if p.creators[user] {
		return CreatorLevel
	}
	if level, named := p.users[user]; named {
		return level
	}
	return p.usersDefault
}

// MaySend tells whether a user who is joined has the power to send events of
// that type, as state or not.
func (p *Powers) MaySend(user id.UserID, eventType string, state bool) bool {
	needed, named := p.events[eventType]
	switch {
	case named:
	case state:
		needed = p.stateDefault
	default:
		needed = p.eventsDefault
	}
	return p.Of(user) >= needed
}

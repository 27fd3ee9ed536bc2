package matrixrtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"maunium.net/go/mautrix/id"
)

// DelayID names a delayed event at a homeserver (MSC4140). Who knows it may
// send or cancel the event, so it is a secret: it never prints, as
// config.Secret does not.
type DelayID string

const redacted = "<secret>"

// Reveal returns the ID itself, for the homeserver and the store alone.
func (d DelayID) Reveal() string { return string(d) }

// String implements [fmt.Stringer].
func (d DelayID) String() string { return redacted }

// Format implements [fmt.Formatter], so that no verb shows the ID.
func (d DelayID) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON implements [json.Marshaler].
func (d DelayID) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (d DelayID) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// DelayedLeave is a leave that a client scheduled at its homeserver and hands
// over: to be put off while the client is connected to the SFU, and sent once
// it is not (MSC4140, MSC4195).
type DelayedLeave struct {
	Room SFURoom
	// Identity is the participant's by the route of the request. Also is
	// another that the same client may have, or empty.
	Identity, Also Identity
	User           id.UserID
	// Server is the user's homeserver.
	Server  string
	DelayID DelayID
	// Delay is what the client scheduled the leave with; more than 0.
	Delay time.Duration
}

// ScheduledEvent is what a homeserver says of a delayed event (MSC4140).
type ScheduledEvent struct {
	RoomID id.RoomID
	// Delay is what it was scheduled with, as the homeserver says it.
	Delay time.Duration
}

var (
	// ErrNoEvent is returned for a delayed event that the user has not
	// scheduled, or that is not to come any more.
	ErrNoEvent = errors.New("the user has no such delayed event")
	// ErrEventHidden is returned where we may not look at delayed events.
	ErrEventHidden = errors.New("the delayed events of users are not shown to us")
	// ErrTooManyLeaves is returned when somebody has handed over more leaves
	// than they can have calls.
	ErrTooManyLeaves = errors.New("too many delayed leaves")
	// ErrStopping is returned while the program ends.
	ErrStopping = errors.New("the service is stopping")
)

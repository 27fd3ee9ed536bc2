package matrixrtc

import "time"

// SFUEventType says what happened on an SFU.
type SFUEventType string

const (
	// RoomStarted: the SFU made a room.
	RoomStarted SFUEventType = "room_started"
	// RoomFinished: the SFU closed a room; who was in it is out.
	RoomFinished SFUEventType = "room_finished"
	// ParticipantJoined: media flows for this participant.
	ParticipantJoined SFUEventType = "participant_joined"
	// ParticipantLeft: a participant that had joined is gone.
	ParticipantLeft SFUEventType = "participant_left"
	// ParticipantAborted: a participant went before media ever flowed.
	ParticipantAborted SFUEventType = "participant_connection_aborted"
)

// SFUEvent is what an SFU reports, in its own names: the hash of the slot and
// an identity. Who that is stands in the grant row.
type SFUEvent struct {
	// ID is the SFU's own number of the event; deliveries may repeat.
	ID   string
	Type SFUEventType
	Room SFURoom
	// At is the SFU's clock, in whole seconds; zero when it named no time.
	At time.Time
	// Identity and ParticipantSID are empty for events of a room. The SID is
	// new with every connection; the identity stays.
	Identity       Identity
	ParticipantSID string
	// Publish is what the SFU lets the participant send.
	Publish Sources
	// Reason is LiveKit's DisconnectReason, such as CLIENT_INITIATED; empty
	// unless somebody left.
	Reason string
}

// Participant is a person who is connected to an SFU room now. Helpers, hidden
// ones and agents are none.
type Participant struct {
	Identity Identity
	// SID is the SFU's name for this very connection.
	SID string
	// Joined is true once media can flow.
	Joined bool
	// JoinedAt is when it came, by the SFU's clock, in whole seconds.
	JoinedAt time.Time
	// Publish is what the SFU lets it send, and Sends what it does send, by what
	// is in the tracks: a video is none from a microphone.
	Publish, Sends Sources
}

package matrixrtc

import (
	"fmt"
	"strings"
	"time"
)

// Sources is a set of what a participant may send to the SFU. The zero value is
// nothing. Its bits stand in the database, so they keep their meaning.
type Sources uint8

// The sources, as LiveKit tells them apart. Which of camera and screen a video
// is only its sender knows.
const (
	Microphone Sources = 1 << iota
	Camera
	// ScreenShare is the screen and the sound that goes with it.
	ScreenShare

	// AllSources is no limit.
	AllSources = Microphone | Camera | ScreenShare
)

// sourceNames are the names in which sources are written down.
var sourceNames = []struct {
	source Sources
	name   string
}{
	{Microphone, "microphone"},
	{Camera, "camera"},
	{ScreenShare, "screen_share"},
}

// ParseSources reads names: microphone, camera, screen_share.
func ParseSources(names []string) (Sources, error) {
	var set Sources
next:
	for _, name := range names {
		for _, known := range sourceNames {
			if name == known.name {
				set |= known.source
				continue next
			}
		}
		return 0, fmt.Errorf("%q is none of microphone, camera, screen_share", name)
	}
	return set, nil
}

// String is the names of the sources, separated by commas.
func (s Sources) String() string {
	var names []string
	for _, known := range sourceNames {
		if s&known.source != 0 {
			names = append(names, known.name)
		}
	}
	return strings.Join(names, ",")
}

// Rights are what somebody may do in a call. The zero value allows nothing.
type Rights struct {
	// Join: get a token, connect, receive.
	Join bool
	// Start: have the call's SFU room made, when there is none.
	Start bool
	// Publish is what they may send to our SFU.
	Publish Sources
}

// And is what both allow.
func (r Rights) And(other Rights) Rights {
	return Rights{Join: r.Join && other.Join, Start: r.Start && other.Start, Publish: r.Publish & other.Publish}
}

// Permissions are what a participant who is connected may do beside receiving.
type Permissions struct {
	Publish Sources
	// UpdateOwnMetadata: change one's name and attributes on the SFU.
	UpdateOwnMetadata bool
}

// Bounds are how large and how long a call may become; 0 is no limit.
type Bounds struct {
	MaxParticipants int
	// Longest is counted from when the first participant came.
	Longest time.Duration
}

// Or is b, and the other's where b has no limit of its own.
func (b Bounds) Or(other Bounds) Bounds {
	if b.MaxParticipants == 0 {
		b.MaxParticipants = other.MaxParticipants
	}
	if b.Longest == 0 {
		b.Longest = other.Longest
	}
	return b
}

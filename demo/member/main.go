// Package member is a caller without a browser: a process that connects to an
// SFU with LiveKit's own client, sends and receives sound, and can be killed,
// stopped and cut off like a browser's tab. What it does in Matrix is its
// starter's part.
package member

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
)

// Command is the argument with which a program that can be a member is one.
const Command = "member"

// Grant is what the focus gave: where to connect, and with what.
type Grant struct {
	URL string `json:"url"`
	JWT string `json:"jwt"`
}

// What a member reports.
const (
	Connected    = "connected"
	Reconnecting = "reconnecting"
	Reconnected  = "reconnected"
	Leaving      = "leaving"      // as it was told
	Disconnected = "disconnected" // for good; its process ends
)

// Report is what a member says happened to it.
type Report struct {
	What string    `json:"what"`
	Why  string    `json:"why,omitempty"`
	At   time.Time `json:"at"`
	// Heard is how many frames of the others' voices have come so far.
	Heard int `json:"heard"`
}

// leave is the line that tells a member to leave as a button does.
const leave = "leave"

const (
	connectPatience = 60 * time.Second
	connectPause    = 300 * time.Millisecond
	// publishPatience is how long a connection has until sound can be sent: LiveKit's
	// client may be left with one that is closed and that it does not make again.
	publishPatience = 20 * time.Second
	// frameTime is one Opus frame in five: enough to see that sound passes, and
	// a dozen of them cost little.
	frameTime = 100 * time.Millisecond
)

// Main is the member's process: a Grant comes on stdin, then at most one line
// that tells it to leave. Reports go to stdout. It ends with stdin.
func Main(stdin io.Reader, stdout io.Writer) int {
	lines := bufio.NewScanner(stdin)
	var grant Grant
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &grant) != nil {
		fmt.Fprintln(os.Stderr, "member: no grant")
		return 1
	}
	lksdk.SetLogger(logger.GetDiscardLogger())
	m := &speaker{out: json.NewEncoder(stdout), ended: make(chan struct{})}
	if err := m.connect(grant); err != nil {
		m.say(Disconnected, err.Error())
		return 1
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		for lines.Scan() && strings.TrimSpace(lines.Text()) != leave {
		}
	}()
	select {
	case <-told:
		m.say(Leaving, "")
		m.room.Disconnect()
	case <-m.ended:
	}
	return 0
}

// speaker is the member while it is connected.
type speaker struct {
	room  *lksdk.Room
	ear   Ear
	ended chan struct{}

	mu  sync.Mutex
	out *json.Encoder
}

func (m *speaker) connect(grant Grant) error {
	callback := &lksdk.RoomCallback{
		ParticipantCallback: lksdk.ParticipantCallback{OnTrackSubscribed: m.ear.Listen},
		OnReconnecting:      func() { m.say(Reconnecting, "") },
		OnReconnected:       func() { m.say(Reconnected, "") },
		OnDisconnectedWithReason: func(reason lksdk.DisconnectionReason) {
			m.say(Disconnected, string(reason))
			close(m.ended)
		},
	}
	var err error
	for began := time.Now(); time.Since(began) < connectPatience; time.Sleep(connectPause) {
		// A person would press the button again.
		if m.room, err = lksdk.ConnectToRoomWithToken(grant.URL, grant.JWT, callback); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := m.speak(); err != nil {
		return err
	}
	m.say(Connected, "")
	return nil
}

// speak tries again, too: the signalling may break at any moment, and comes
// back by itself. What is said ends with the process.
func (m *speaker) speak() (err error) {
	for began := time.Now(); time.Since(began) < publishPatience; time.Sleep(connectPause) {
		if _, err = Speak(m.room, frameTime); err == nil {
			return nil
		}
	}
	return fmt.Errorf("publish: %w", err)
}

func (m *speaker) say(what, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.out.Encode(Report{What: what, Why: why, At: time.Now(), Heard: m.ear.total()})
}

package member

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

// opus begins each frame, as it does a real one's.
const opus = 0xf8

// frame is the n-th that the participant of that identity says: nobody else
// says the same, and neither does it say it twice.
func frame(identity string, n uint32) []byte {
	said := binary.BigEndian.AppendUint32([]byte{opus}, n)
	words := sha256.Sum256(append([]byte(identity), said...))
	return append(said, words[:]...)
}

// numberOf is which frame of that identity's it is; ok is false for what it
// has never said.
func numberOf(identity string, payload []byte) (n uint32, ok bool) {
	if len(payload) < 5 {
		return 0, false
	}
	n = binary.BigEndian.Uint32(payload[1:5])
	return n, bytes.Equal(payload, frame(identity, n))
}

// Voice is what a participant says: numbered frames that are its own.
type Voice struct {
	stop, stopped chan struct{}
}

// Speak publishes a voice in the room and says a frame each time that so much
// time is over, until Stop.
func Speak(room *lksdk.Room, every time.Duration) (*Voice, error) {
	track, err := lksdk.NewLocalSampleTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
	if err != nil {
		return nil, err
	}
	if _, err = room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{Name: "voice"}); err != nil {
		return nil, err
	}
	v := &Voice{make(chan struct{}), make(chan struct{})}
	go v.speak(track, room.LocalParticipant.Identity(), every)
	return v, nil
}

func (v *Voice) speak(track *lksdk.LocalTrack, identity string, every time.Duration) {
	defer close(v.stopped)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for n := uint32(1); ; n++ {
		select {
		case <-v.stop:
			return
		case <-ticker.C:
		}
		// While the SFU is away there is nowhere to send to.
		_ = track.WriteSample(media.Sample{Data: frame(identity, n), Duration: every}, nil)
	}
}

// Stop ends it.
func (v *Voice) Stop() {
	close(v.stop)
	<-v.stopped
}

// Ear takes down what a participant hears. It is safe for concurrent use; its
// zero value is ready.
type Ear struct {
	mu    sync.Mutex
	heard map[string]int // by identity
	wrong int
}

// Listen hears a track until its end; it is LiveKit's OnTrackSubscribed.
func (e *Ear) Listen(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, from *lksdk.RemoteParticipant) {
	for last := uint32(0); ; {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if len(packet.Payload) > 0 { // else it is padding
			last = e.hear(from.Identity(), packet.Payload, last)
		}
	}
}

// hear takes down one frame and returns the last one's number.
func (e *Ear) hear(identity string, payload []byte, last uint32) uint32 {
	n, ok := numberOf(identity, payload)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !ok:
		e.wrong++
	case n > last: // else late, or sent again
		if e.heard == nil {
			e.heard = map[string]int{}
		}
		e.heard[identity]++
		last = n
	}
	return last
}

// Heard is how many frames of each identity came, each counted once.
func (e *Ear) Heard() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	heard := map[string]int{}
	for identity, n := range e.heard {
		heard[identity] = n
	}
	return heard
}

// Wrong is how many packets came that nobody can have sent so.
func (e *Ear) Wrong() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wrong
}

// total is how many frames came of all.
func (e *Ear) total() (n int) {
	for _, heard := range e.Heard() {
		n += heard
	}
	return n
}

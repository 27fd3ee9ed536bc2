package child_test

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/stretchr/testify/require"

	"passerelle/focus/sfu"
)

const (
	roomName = "a-call"
	// frameTime is the length of one Opus frame.
	frameTime = 20 * time.Millisecond
	// patience is what a loaded machine may need for anything here.
	patience = time.Minute
)

// caller is one participant: it sends numbered Opus frames and takes down what
// it receives of the other.
type caller struct {
	room *lksdk.Room
	name byte
	// told delivers why the SFU said goodbye.
	told chan lksdk.DisconnectionReason

	mu    sync.Mutex
	from  byte
	count int
	last  time.Time
	worst time.Duration
	wrong []string
}

// join has a caller enter the room and send until the test's end.
func join(t *testing.T, s *sfu.Supervisor, name byte) *caller {
	t.Helper()
	c := &caller{name: name, told: make(chan lksdk.DisconnectionReason, 1)}
	callback := lksdk.NewRoomCallback()
	callback.OnTrackSubscribed = func(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, p *lksdk.RemoteParticipant) {
		go c.listen(track, p.Identity()[0])
	}
	callback.OnDisconnectedWithReason = func(reason lksdk.DisconnectionReason) { c.told <- reason }
	key, secret := s.Key()
	token, err := auth.NewAccessToken(key, secret.Reveal()).SetIdentity(string(name)).
		SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: roomName}).SetValidFor(time.Hour).ToJWT()
	require.NoError(t, err)
	c.room, err = lksdk.ConnectToRoomWithToken(s.APIURL().String(), token, callback)
	require.NoError(t, err)
	t.Cleanup(c.room.Disconnect)

	track, err := lksdk.NewLocalSampleTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
	require.NoError(t, err)
	_, err = c.room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{Name: "voice"})
	require.NoError(t, err)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { defer close(stopped); c.speak(track, stop) }()
	t.Cleanup(func() { close(stop); <-stopped })
	return c
}

// speak sends silence with our name and a number behind it.
func (c *caller) speak(track *lksdk.LocalTrack, stop <-chan struct{}) {
	tick := time.NewTicker(frameTime)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		frame := binary.BigEndian.AppendUint64([]byte{0xf8, 0xff, 0xfe, c.name}, n)
		// While the SFU is away there is nowhere to send to.
		_ = track.WriteSample(media.Sample{Data: frame, Duration: frameTime}, nil)
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

func (c *caller) listen(track *webrtc.TrackRemote, from byte) {
	for number := uint64(0); ; {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if len(packet.Payload) == 0 { // padding
			continue
		}
		number = c.hear(packet.Payload, from, number)
	}
}

// hear notes one frame and returns its number.
func (c *caller) hear(frame []byte, from byte, last uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(frame) != 12 || frame[3] != from || from == c.name {
		c.wrong = append(c.wrong, string(frame))
		return last
	}
	number := binary.BigEndian.Uint64(frame[4:])
	if number <= last {
		return last // late, or sent again
	}
	now := time.Now()
	if c.count > 0 {
		c.worst = max(c.worst, now.Sub(c.last))
	}
	c.from, c.last = from, now
	c.count++
	return number
}

// forget starts the counts again.
func (c *caller) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count, c.worst = 0, 0
}

// heard returns how many frames came since forget, and the longest time
// between two, the time since the last included.
func (c *caller) heard() (count int, worst time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == 0 {
		return 0, 0
	}
	return c.count, max(c.worst, time.Since(c.last))
}

// awaitBoth waits until each has heard n frames of the other since forget.
func awaitBoth(t *testing.T, n int, callers ...*caller) {
	t.Helper()
	for _, c := range callers {
		require.Eventually(t, func() bool { count, _ := c.heard(); return count >= n }, patience, 5*time.Millisecond,
			"%c hears nothing", c.name)
	}
}

func requireNothingWrong(t *testing.T, callers ...*caller) {
	t.Helper()
	for _, c := range callers {
		c.mu.Lock()
		require.Empty(t, c.wrong, "%c heard what nobody said", c.name)
		c.mu.Unlock()
	}
}

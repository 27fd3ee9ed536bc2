package town_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/stretchr/testify/require"
)

// frameTime is the length of one Opus frame.
const frameTime = 20 * time.Millisecond

// silence is an Opus frame of nothing (RFC 6716, 3.1: SILK-wideband's TOC with
// code 0), before what tells frames apart.
var silence = []byte{0xf8, 0xff, 0xfe}

// participant is one connection to an SFU, with LiveKit's own client. It sends
// Opus frames that say whose they are and the how manieth, and takes down
// those of others.
type participant struct {
	room   *lksdk.Room
	marker byte
	stop   chan struct{}
	going  sync.WaitGroup

	mu    sync.Mutex
	heard map[byte]map[uint64]bool // frames by marker
	wrong []string
}

// connect joins over the address and with the token that a client was given.
func connect(t *testing.T, url, jwt string, marker byte) *participant {
	t.Helper()
	lksdk.SetLogger(logger.GetDiscardLogger())
	p := &participant{marker: marker, stop: make(chan struct{}), heard: map[byte]map[uint64]bool{}}
	callback := lksdk.NewRoomCallback()
	callback.OnTrackSubscribed = func(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, _ *lksdk.RemoteParticipant) {
		p.going.Go(func() { p.listen(track) })
	}
	room, err := lksdk.ConnectToRoomWithToken(url, jwt, callback)
	require.NoError(t, err)
	p.room = room
	t.Cleanup(func() {
		close(p.stop)
		room.Disconnect()
		p.going.Wait()
	})
	return p
}

// publish sends frames until the test's end, or tells why it cannot.
func (p *participant) publish() error {
	track, err := lksdk.NewLocalSampleTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
	if err != nil {
		return err
	}
	if _, err := p.room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{Name: "voice"}); err != nil {
		return err
	}
	p.going.Go(func() { p.speak(track) })
	return nil
}

func (p *participant) speak(track *lksdk.LocalTrack) {
	tick := time.NewTicker(frameTime)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		frame := binary.BigEndian.AppendUint64(append(silence[:len(silence):len(silence)], p.marker), n)
		_ = track.WriteSample(media.Sample{Data: frame, Duration: frameTime}, nil)
		select {
		case <-tick.C:
		case <-p.stop:
			return
		}
	}
}

func (p *participant) listen(track *webrtc.TrackRemote) {
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if len(packet.Payload) > 0 { // else it is padding
			p.hear(packet.Payload)
		}
	}
}

func (p *participant) hear(frame []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	marker, number, err := readFrame(frame)
	if err == nil && marker == p.marker {
		err = errors.New("its own")
	}
	if err != nil {
		p.wrong = append(p.wrong, fmt.Sprintf("%x: %v", frame, err))
		return
	}
	if p.heard[marker] == nil {
		p.heard[marker] = map[uint64]bool{}
	}
	p.heard[marker][number] = true
}

// readFrame reads what speak has written, and nothing else.
func readFrame(frame []byte) (marker byte, number uint64, err error) {
	if len(frame) != len(silence)+9 || string(frame[:len(silence)]) != string(silence) {
		return 0, 0, errors.New("nobody has sent it")
	}
	return frame[len(silence)], binary.BigEndian.Uint64(frame[len(silence)+1:]), nil
}

// count is how many different frames came of whom the marker stands for.
func (p *participant) count(marker byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.heard[marker])
}

func (p *participant) awaitFrames(t *testing.T, marker byte, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return p.count(marker) >= n }, time.Minute, 10*time.Millisecond,
		"%c does not hear %c", p.marker, marker)
	t.Logf("%c has heard %d frames of %c", p.marker, p.count(marker), marker)
}

// requireHeard: all that came is what those have sent whom the markers stand
// for, bit for bit.
func (p *participant) requireHeard(t *testing.T, markers ...byte) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(t, p.wrong)
	require.ElementsMatch(t, markers, slices.Collect(maps.Keys(p.heard)))
}

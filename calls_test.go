package main

import (
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/stretchr/testify/require"

	doortokens "passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
)

// patience is for what must happen: on a machine with much else to do, late.
// How fast it was is logged.
const patience = time.Minute

// participant sends sound and notes when sound arrives.
type participant struct {
	name string
	room *lksdk.Room
	done chan struct{} // closed to stop sending
	sent sync.WaitGroup

	mu      sync.Mutex
	arrived []time.Time
	goodbye chan livekit.DisconnectReason // gets why it was disconnected
}

// join connects through the door and sends 50 packets a second.
func join(t *testing.T, i *instance, user string) *participant {
	t.Helper()
	url, jwt := i.token(user)
	return connect(t, user, url, jwt)
}

// joinDirectly is join without the door: what happens to such a participant
// happens to the SFU.
func joinDirectly(t *testing.T, i *instance, user string) *participant {
	t.Helper()
	return connect(t, user, fmt.Sprintf("ws://127.0.0.1:%d", i.sfuPort), i.sfuToken(user))
}

// sfuToken is what the door would give to the SFU for the user's token.
func (i *instance) sfuToken(user string) string {
	i.t.Helper()
	_, jwt := i.token(user)
	id, secret := i.key()
	door, err := doortokens.NewDoorTokens(id, secret)
	require.NoError(i.t, err)
	ticket, err := doortokens.NewVerifier(door).Verify(jwt)
	require.NoError(i.t, err)
	ticket.Publish = matrixrtc.AllSources
	signed, err := doortokens.NewTokens(id, secret).Resign(ticket)
	require.NoError(i.t, err)
	return signed
}

func connect(t *testing.T, user, url, jwt string) *participant {
	t.Helper()
	lksdk.SetLogger(logger.GetDiscardLogger())
	p := &participant{name: user, done: make(chan struct{}), goodbye: make(chan livekit.DisconnectReason, 1)}
	room, err := lksdk.ConnectToRoomWithToken(url, jwt, &lksdk.RoomCallback{
		ParticipantCallback: lksdk.ParticipantCallback{OnTrackSubscribed: p.listen},
		OnDisconnected:      func() { p.goodbye <- p.room.DisconnectReason() },
	}, lksdk.WithAutoSubscribe(true))
	require.NoError(t, err)
	p.room = room
	track, err := lksdk.NewLocalSampleTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
	require.NoError(t, err)
	_, err = room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{Name: "voice"})
	require.NoError(t, err)
	p.sent.Go(func() { p.speak(track) })
	t.Cleanup(func() {
		close(p.done)
		p.sent.Wait()
		room.Disconnect()
	})
	return p
}

// speak sends frames that all differ, as a voice's do.
func (p *participant) speak(track *lksdk.LocalTrack) {
	const frame = 20 * time.Millisecond
	ticker := time.NewTicker(frame)
	defer ticker.Stop()
	for n := uint32(0); ; n++ {
		select {
		case <-p.done:
			return
		case <-ticker.C:
			data := fmt.Appendf([]byte{0xf8}, "%s %d", p.name, n)
			_ = track.WriteSample(media.Sample{Data: data, Duration: frame}, nil)
		}
	}
}

// listen reads one track of the other until it ends.
func (p *participant) listen(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, _ *lksdk.RemoteParticipant) {
	for {
		if _, _, err := track.ReadRTP(); err != nil {
			return
		}
		p.mu.Lock()
		p.arrived = append(p.arrived, time.Now())
		p.mu.Unlock()
	}
}

// packets is how many have arrived since.
func (p *participant) packets(since time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, at := range p.arrived {
		if at.After(since) {
			n++
		}
	}
	return n
}

// silence is the longest time without a packet since then, up to now.
func (p *participant) silence(since time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest, last := time.Duration(0), since
	for _, at := range p.arrived {
		if at.After(since) {
			longest, last = max(longest, at.Sub(last)), at
		}
	}
	return max(longest, time.Since(last))
}

// hear waits until 25 packets, half a second of sound, have arrived since.
func (p *participant) hear(t *testing.T, since time.Time) {
	t.Helper()
	require.Eventually(t, func() bool { return p.packets(since) >= 25 }, patience, 10*time.Millisecond, "%s hears nothing", p.name)
}

// heard is when the first packet arrived after that time.
func (p *participant) heard(since time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.arrived {
		if at.After(since) {
			return at
		}
	}
	return time.Time{}
}

// TestACallSurvives is a real call of two participants with the SFU in the
// binary, whose processes are killed one after the other.
func TestACallSurvives(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	i := newInstance(t)
	i.start()
	ana, bo := join(t, i, "ana"), join(t, i, "bo")
	direct, other := joinDirectly(t, i, "dora"), joinDirectly(t, i, "emil")
	began := time.Now()
	for _, p := range []*participant{ana, bo, direct, other} {
		p.hear(t, began)
	}

	t.Run("the SFU is killed", func(t *testing.T) {
		before := i.sfu()
		killed := time.Now()
		require.NoError(t, syscall.Kill(before, syscall.SIGKILL))
		_, _ = i.token("cleo") // who asks at this very moment waits a little
		ana.hear(t, killed.Add(100*time.Millisecond))
		bo.hear(t, killed.Add(100*time.Millisecond))
		require.NotEqual(t, before, i.sfu())
		for _, p := range []*participant{ana, bo} {
			// Packets that were on their way arrive a moment after the kill.
			after := p.heard(killed.Add(100 * time.Millisecond)).Sub(killed)
			t.Logf("%s hears again after %s", p.name, after.Round(time.Millisecond))
		}
	})
	t.Run("Passerelle is killed", func(t *testing.T) {
		sfu := i.sfu()
		killed := time.Now()
		i.kill()
		i.start() // as a service manager would
		require.Equal(t, sfu, i.sfu(), "the SFU was taken over")
		back := time.Now()
		ana.hear(t, back)
		bo.hear(t, back)
		// The SFU goes on as if nothing had been. Those whose signalling passed
		// the door connect anew, as LiveKit's clients do when it breaks.
		for _, p := range []*participant{direct, other, ana, bo} {
			t.Logf("%s: longest silence %s", p.name, p.silence(killed).Round(time.Millisecond))
			require.Less(t, p.silence(killed), 10*time.Second, "media stopped")
		}
		cleo := join(t, i, "cleo")
		cleo.hear(t, time.Now())
	})
	t.Run("Passerelle stops", func(t *testing.T) {
		began := time.Now()
		i.end(i.process)
		require.True(t, i.process.ProcessState.Success(), "%s", i.said)
		t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
		select {
		case reason := <-ana.goodbye:
			require.Equal(t, livekit.DisconnectReason_SERVER_SHUTDOWN, reason)
		case <-time.After(patience):
			t.Error("the participants were not told")
		}
		_, err := net.Dial("unix", filepath.Join(i.dir, "data", "sfu.sock"))
		require.Error(t, err, "the SFU is gone")
	})
}

// TestExternalSFU is a call through a LiveKit that somebody else runs: that of
// another Passerelle.
func TestExternalSFU(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	other := newInstance(t)
	other.start()
	key, secret := other.key()
	i := newInstanceWith(t, func(*instance, int, int) string {
		return fmt.Sprintf("{mode: external, url: %q, key: %q, secret: %q}", fmt.Sprintf("ws://127.0.0.1:%d", other.sfuPort), key, secret)
	})
	i.start()
	ana, bo := join(t, i, "ana"), join(t, i, "bo")
	began := time.Now()
	ana.hear(t, began)
	bo.hear(t, began)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

const (
	// callers talk in one room, each in packets of frame, which the SFU
	// forwards to all others.
	callers = 8
	frame   = 20 * time.Millisecond
)

// forwarded is what one round of media was.
type forwarded struct {
	packets   int64
	sfu, door time.Duration
}

// perSecond is packets for each second of the SFU's processor.
func (f forwarded) perSecond() float64 { return float64(f.packets) / f.sfu.Seconds() }

// withDoor is the same with the door's processor time counted too.
func (f forwarded) withDoor() float64 { return float64(f.packets) / (f.sfu + f.door).Seconds() }

// measureMedia prints how many packets the SFU forwards in a second of its
// processor, behind the door and reached directly.
func (b *bench) measureMedia(ctx context.Context) error {
	ours, err := b.startReal(ctx)
	if err != nil {
		return err
	}
	defer ours.stop()
	var behind, direct []forwarded
	for n := range b.rounds {
		// Who goes first changes, so that what the first one warms up counts
		// for neither.
		ways := []*process{ours.process, ours.sfu}
		if n%2 == 1 {
			slices.Reverse(ways)
		}
		for _, way := range ways {
			f, err := b.hold(ctx, ours, way, fmt.Sprintf("media%d", n))
			if err != nil {
				return err
			}
			if way == ours.sfu {
				direct = append(direct, f)
			} else {
				behind = append(behind, f)
			}
		}
	}
	ratio := func(of func(forwarded) float64) float64 {
		var ratios []float64
		for n := range behind {
			ratios = append(ratios, of(behind[n])/direct[n].perSecond())
		}
		slices.Sort(ratios)
		return ratios[len(ratios)/2]
	}
	fmt.Printf("\n%d callers, packets forwarded in a second of the SFU's processor: %.0f behind the door, %.0f directly: ratio %.3f (%.3f with the door's own processor time)\n",
		callers, median(behind, forwarded.perSecond), median(direct, forwarded.perSecond), ratio(forwarded.perSecond), ratio(forwarded.withDoor))
	return nil
}

// hold holds one call over that way and counts what everybody hears.
func (b *bench) hold(ctx context.Context, ours *realSFU, way *process, room string) (forwarded, error) {
	var heard atomic.Int64
	var all []*caller
	defer func() {
		for _, c := range all {
			c.leave()
		}
	}()
	for n := range callers {
		token, err := ours.token(ctx, b.world, way, room+way.address, n)
		if err != nil {
			return forwarded{}, err
		}
		c, err := call(way.address, token, &heard)
		if err != nil {
			return forwarded{}, err
		}
		all = append(all, c)
	}
	if err := everybodyHears(ctx, &heard); err != nil {
		return forwarded{}, err
	}
	before := heard.Load()
	door, sfu, err := bothCPU(ours.process, ours.sfu)
	if err != nil {
		return forwarded{}, err
	}
	select {
	case <-ctx.Done():
		return forwarded{}, ctx.Err()
	case <-time.After(b.length):
	}
	packets := heard.Load() - before
	doorAfter, sfuAfter, err := bothCPU(ours.process, ours.sfu)
	return forwarded{packets: packets, sfu: sfuAfter - sfu, door: doorAfter - door}, err
}

// everybodyHears waits until nearly as many packets arrive as are due when each
// hears all others, half a second long.
func everybodyHears(ctx context.Context, heard *atomic.Int64) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	const look = 500 * time.Millisecond
	const due = callers * (callers - 1) * int64(look/frame)
	for {
		before := heard.Load()
		select {
		case <-ctx.Done():
			return errors.New("the callers do not all hear each other")
		case <-time.After(look):
		}
		if heard.Load()-before > due*9/10 {
			return nil
		}
	}
}

// caller talks until it leaves.
type caller struct {
	room    *lksdk.Room
	left    chan struct{}
	talking sync.WaitGroup
}

func call(address, token string, heard *atomic.Int64) (*caller, error) {
	lksdk.SetLogger(logger.GetDiscardLogger())
	room, err := lksdk.ConnectToRoomWithToken(address, token, &lksdk.RoomCallback{
		ParticipantCallback: lksdk.ParticipantCallback{
			OnTrackSubscribed: func(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, _ *lksdk.RemoteParticipant) {
				for {
					if _, _, err := track.ReadRTP(); err != nil {
						return
					}
					heard.Add(1)
				}
			},
		},
	}, lksdk.WithAutoSubscribe(true))
	if err != nil {
		return nil, err
	}
	c := &caller{room: room, left: make(chan struct{})}
	track, err := lksdk.NewLocalSampleTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
	if err == nil {
		_, err = room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{Name: "voice"})
	}
	if err != nil {
		room.Disconnect()
		return nil, err
	}
	c.talking.Go(func() { c.talk(track) })
	return c, nil
}

// talk sends frames of the size of a voice's, that all differ.
func (c *caller) talk(track *lksdk.LocalTrack) {
	ticker := time.NewTicker(frame)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-c.left:
			return
		case <-ticker.C:
			data := append([]byte{0xf8}, make([]byte, 80)...)
			copy(data[1:], strconv.Itoa(n))
			_ = track.WriteSample(media.Sample{Data: data, Duration: frame}, nil)
		}
	}
}

func (c *caller) leave() {
	close(c.left)
	c.talking.Wait()
	c.room.Disconnect()
}

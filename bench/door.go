package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

const (
	// idleSockets are open at once when memory is looked at.
	idleSockets = 500
	// talkers are the connections on which messages go back and forth, each of
	// messageSize bytes: an offer is some thousands, most others are less.
	talkers     = 16
	messageSize = 300
)

// measureDoor prints what a signalling connection and a message cost.
func (b *bench) measureDoor(ctx context.Context) error {
	ours, err := startPasserelle(ctx, b.binary, b.dir, b.world)
	if err != nil {
		return err
	}
	defer ours.stop()
	if err := b.measureIdle(ctx, ours); err != nil {
		return err
	}
	return b.measureMessages(ctx, ours)
}

// measureIdle opens many connections that then say nothing. The first half
// warms up: what the process keeps of its own accord is in both.
func (b *bench) measureIdle(ctx context.Context, ours *process) error {
	var at []float64
	var all []*websocket.Conn
	defer func() { closeAll(all) }()
	for range 2 {
		for range idleSockets {
			conn, err := b.dialDoor(ctx, ours, len(all))
			if err != nil {
				return err
			}
			all = append(all, conn)
		}
		rss, err := settled(ctx, ours)
		if err != nil {
			return err
		}
		at = append(at, rss)
	}
	fmt.Printf("\n%d idle signalling connections more than %d: %.1f KiB of memory each\n",
		idleSockets, idleSockets, (at[1]-at[0])*1024/idleSockets)
	return nil
}

// settled is the memory of the process once it grows no more.
func settled(ctx context.Context, p *process) (float64, error) {
	last := math.Inf(1)
	for {
		rss, err := p.rss()
		if err != nil || math.Abs(rss-last) < 0.1 {
			return rss, err
		}
		last = rss
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// talk is what one round of messages cost.
type talk struct {
	messages  int
	wall      time.Duration
	door, sfu time.Duration
}

// per is a duration for each message, in microseconds.
func (t talk) per(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(t.messages) }

// measureMessages sends messages to the SFU and waits for each to come back,
// through the door and straight, in turn.
func (b *bench) measureMessages(ctx context.Context, ours *process) error {
	var through, straight []talk
	for range b.rounds {
		t, err := b.talk(ctx, ours, func(n int) (*websocket.Conn, error) { return b.dialDoor(ctx, ours, n) })
		if err != nil {
			return err
		}
		through = append(through, t)
		t, err = b.talk(ctx, ours, func(int) (*websocket.Conn, error) {
			conn, _, err := websocket.Dial(ctx, b.world.sfu.address+"/rtc", nil)
			return conn, err
		})
		if err != nil {
			return err
		}
		straight = append(straight, t)
	}
	there := func(t talk) float64 { return t.per(t.wall) * talkers }
	door := median(through, func(t talk) float64 { return t.per(t.door) })
	behind := median(through, func(t talk) float64 { return t.per(t.sfu) })
	direct := median(straight, func(t talk) float64 { return t.per(t.sfu) })
	fmt.Printf("\na signalling message and its echo: %.1f µs of CPU in the door, %.1f µs in the SFU behind it, %.1f µs in the SFU reached directly: ratio %.2f\n",
		door, behind, direct, (door+behind)/direct)
	fmt.Printf("time there and back, over %d connections: %.0f µs through the door, %.0f µs directly: ratio %.2f\n",
		talkers, median(through, there), median(straight, there), median(through, there)/median(straight, there))
	return nil
}

// talk sends messages for one round.
func (b *bench) talk(ctx context.Context, ours *process, dial func(n int) (*websocket.Conn, error)) (talk, error) {
	var all []*websocket.Conn
	defer func() { closeAll(all) }()
	for n := range talkers {
		conn, err := dial(n)
		if err != nil {
			return talk{}, err
		}
		all = append(all, conn)
	}
	door, sfu, err := bothCPU(ours, b.world.sfu)
	if err != nil {
		return talk{}, err
	}
	started := time.Now()
	var count atomic.Int64
	failures := make([]error, talkers)
	var talking sync.WaitGroup
	for n, conn := range all {
		talking.Go(func() {
			message := make([]byte, messageSize)
			for time.Since(started) < b.length && failures[n] == nil {
				failures[n] = conn.Write(ctx, websocket.MessageBinary, message)
				if failures[n] == nil {
					_, _, failures[n] = conn.Read(ctx)
				}
				count.Add(1)
			}
		})
	}
	talking.Wait()
	t := talk{messages: int(count.Load()), wall: time.Since(started)}
	doorAfter, sfuAfter, err := bothCPU(ours, b.world.sfu)
	t.door, t.sfu = doorAfter-door, sfuAfter-sfu
	return t, errors.Join(append(failures, err)...)
}

func bothCPU(a, b *process) (time.Duration, time.Duration, error) {
	first, err := a.cpu()
	second, err2 := b.cpu()
	return first, second, errors.Join(err, err2)
}

// dialDoor gets a token for the n-th user and passes the door with it.
func (b *bench) dialDoor(ctx context.Context, ours *process, n int) (*websocket.Conn, error) {
	token, err := b.world.token(ctx, ours, "signalling"+strconv.Itoa(n%rooms), n)
	if err != nil {
		return nil, err
	}
	conn, _, err := websocket.Dial(ctx, ours.address+"/rtc?access_token="+url.QueryEscape(token), nil)
	return conn, err
}

func closeAll(all []*websocket.Conn) {
	for _, conn := range all {
		_ = conn.CloseNow()
	}
}

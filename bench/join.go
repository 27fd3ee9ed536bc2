package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
)

// joinsPerRound is how many join in one round on either way.
const joinsPerRound = 30

// realSFU is Passerelle with the SFU as its child.
type realSFU struct {
	*process
	sfu *process // the child, which the bench did not start and does not stop
	// key and secret are those of the child's API.
	key    string
	secret []byte
}

// straight makes of a token for the door one that the SFU itself accepts.
func (r *realSFU) straight(token string) (string, error) {
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		return "", err
	}
	claims["iss"] = r.key
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(r.secret)
}

// token is a token of the n-th user for a room, for that way to the SFU.
func (r *realSFU) token(ctx context.Context, world *stubs, way *process, room string, n int) (string, error) {
	token, err := world.token(ctx, r.process, room, n)
	if err != nil || way == r.process {
		return token, err
	}
	return r.straight(token)
}

func (b *bench) startReal(ctx context.Context) (*realSFU, error) {
	port, udp, err := freePorts()
	if err != nil {
		return nil, err
	}
	colon := strings.LastIndexByte
	dir := filepath.Join(b.dir, "real")
	p, err := startWith(ctx, b.binary, dir, b.world.home, fmt.Sprintf(
		"{embedded: {port: %s, udp_port: %s, tcp_port: 0, node_ip: 127.0.0.1, loopback: true}}",
		port[colon(port, ':')+1:], udp[colon(udp, ':')+1:]))
	if err != nil {
		return nil, err
	}
	r := &realSFU{process: p}
	// Whoever asks for a token waits for the SFU.
	if _, err := b.world.token(ctx, p, "first", 0); err != nil {
		p.stop()
		return nil, err
	}
	if r.sfu, err = child(filepath.Join(dir, "data", "sfu.sock"), "http://"+port); err != nil {
		p.stop()
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "data", "livekit.key"))
	if err != nil {
		p.stop()
		return nil, err
	}
	key, secret, _ := strings.Cut(strings.TrimSpace(string(data)), ": ")
	r.key, r.secret = key, []byte(secret)
	return r, nil
}

// measureJoins prints how long it takes from dialling to the SFU's first
// answer, which says who is in the room.
func (b *bench) measureJoins(ctx context.Context) error {
	ours, err := b.startReal(ctx)
	if err != nil {
		return err
	}
	defer ours.stop()
	var through, straight []time.Duration
	for n := range b.rounds * joinsPerRound {
		for way, into := range map[*process]*[]time.Duration{ours.process: &through, ours.sfu: &straight} {
			// Each is somebody else, in a room of five.
			user := 2 * n
			if way == ours.sfu {
				user++
			}
			token, err := ours.token(ctx, b.world, way, "join"+strconv.Itoa(user/10), user)
			if err != nil {
				return err
			}
			took, err := join(ctx, way.address, token)
			if err != nil {
				return err
			}
			*into = append(*into, took)
		}
	}
	slices.Sort(through)
	slices.Sort(straight)
	at := func(all []time.Duration, p float64) float64 {
		return all[int(p*float64(len(all)))].Seconds() * 1000
	}
	fmt.Printf("\n%-26s %12s %12s %10s %7s\n", "join, dial to first answer", "door ms", "direct ms", "added ms", "ratio")
	for _, p := range []float64{0.5, 0.95} {
		door, direct := at(through, p), at(straight, p)
		fmt.Printf("%-26s %12.2f %12.2f %10.2f %7.2f\n", fmt.Sprintf("p%.0f", p*100), door, direct, door-direct, door/direct)
	}
	return nil
}

// join connects, takes the first answer and goes away again.
func join(ctx context.Context, address, token string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	began := time.Now()
	conn, _, err := websocket.Dial(ctx, address+"/rtc?protocol=16&sdk=go&auto_subscribe=1&access_token="+url.QueryEscape(token), nil)
	if err != nil {
		return 0, err
	}
	defer conn.CloseNow()
	_, message, err := conn.Read(ctx)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	var answer livekit.SignalResponse
	if err := proto.Unmarshal(message, &answer); err != nil {
		return 0, err
	}
	if answer.GetJoin() == nil {
		return 0, errors.New("the first answer of the SFU is not the one to a join")
	}
	return took, nil
}

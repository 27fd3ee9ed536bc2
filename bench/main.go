// The benchmark of what a call costs Passerelle. It starts the real binary as a
// process of its own and measures it in closed loops beside a yardstick that is
// measured in turn, in alternating rounds of the same run. The ratio of the two
// is what compares across machines.
//
//   - tokens: with a homeserver and an SFU that cost next to nothing, beside a
//     bare net/http service that does no more than it must: ask the homeserver
//     over one shared client, have the room made, sign, answer.
//   - proxied: tokens that are asked for through the homeserver (MSC4195), beside
//     a bare net/http service that asks whether the user is in the room; then
//     what a real Synapse itself needs for each, where it is installed.
//   - memory: what stays after many tokens.
//   - door: signalling connections and messages through the door, beside those
//     that go straight to the same SFU, which sends everything back.
//   - join: the time to the first answer of the real SFU, through the door and
//     straight.
//   - media: packets that the real SFU forwards in a second of its processor,
//     to participants behind the door and to such as came straight.
//
// Usage:
//
//	go run ./bench [-seconds 3] [-rounds 3] [-tokens 30000] [-only tokens,proxied,memory,door,join,media]
//	go run ./bench -profile FILE [-only proxied]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 2 {
		for name, serve := range map[string]func() error{"bare": serveBare, "echo": serveEcho} {
			if os.Args[1] == name {
				fail(serve())
				return
			}
		}
	}
	b := &bench{}
	seconds := flag.Int("seconds", 3, "length of one round")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of each measurement; the median counts")
	flag.IntVar(&b.tokens, "tokens", 30_000, "tokens of the memory measurement")
	only := flag.String("only", "tokens,proxied,memory,door,join,media", "what to measure")
	profile := flag.String("profile", "", "file for a processor profile of /get_token, or with -only proxied of what comes through the homeserver, at 16 connections, instead of all else")
	flag.Parse()
	b.length = time.Duration(*seconds) * time.Second
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fail(b.run(ctx, strings.Split(*only, ","), *profile))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	length         time.Duration
	rounds, tokens int

	dir, binary string
	world       *stubs
}

func (b *bench) run(ctx context.Context, only []string, profile string) (err error) {
	if b.dir, err = os.MkdirTemp("", "passerelle-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.world, err = newStubs(ctx, b.dir); err != nil {
		return err
	}
	defer b.world.close()
	if profile != "" {
		if slices.Equal(only, []string{"proxied"}) {
			return b.profile(ctx, profile, proxiedRoute)
		}
		return b.profile(ctx, profile, "/get_token")
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{
		{"tokens", b.measureTokens}, {"proxied", b.measureProxied}, {"memory", b.measureMemory}, {"door", b.measureDoor},
		{"join", b.measureJoins}, {"media", b.measureMedia},
	} {
		if slices.Contains(only, part.name) {
			if err := part.measure(ctx); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	return nil
}

// build makes the real binary.
func (b *bench) build(ctx context.Context, flags ...string) error {
	fmt.Println("Building …")
	b.binary = filepath.Join(b.dir, "passerelle")
	arguments := append([]string{"build", "-buildvcs=false", "-o", b.binary}, flags...)
	if out, err := exec.CommandContext(ctx, "go", append(arguments, ".")...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// median is the middle value of something about each result.
func median[T any](results []T, of func(T) float64) float64 {
	var values []float64
	for _, r := range results {
		values = append(values, of(r))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

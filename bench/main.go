// The benchmark of token requests. It starts the real binary as a process of
// its own, with a homeserver and an SFU that cost next to nothing, asks for
// tokens in closed loops, and prints what each costs. Beside it, in alternating
// rounds of the same run, it measures a bare net/http service that does no more
// than it must: ask the homeserver over one shared client, sign, answer. The
// ratio of the two is what compares across machines.
//
//	go run ./bench [-seconds 3] [-rounds 3] [-tokens 30000]
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
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "bare" {
		if err := serveBare(os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	seconds := flag.Int("seconds", 3, "length of one round")
	rounds := flag.Int("rounds", 3, "rounds for each number of connections; the median counts")
	tokens := flag.Int("tokens", 30_000, "tokens of the memory measurement")
	profile := flag.String("profile", "", "file for a processor profile of /get_token at 16 connections, instead of all else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := run
	if *profile != "" {
		run = profiled(*profile)
	}
	if err := run(ctx, time.Duration(*seconds)*time.Second, *rounds, *tokens); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, length time.Duration, rounds, tokens int) error {
	dir, err := os.MkdirTemp("", "passerelle-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := build(ctx, dir)
	if err != nil {
		return err
	}
	world, err := newStubs(dir)
	if err != nil {
		return err
	}
	defer world.close()
	ours, err := startPasserelle(ctx, binary, dir, world)
	if err != nil {
		return err
	}
	defer ours.stop()
	bare, err := startBare(ctx, world)
	if err != nil {
		return err
	}
	defer bare.stop()

	fmt.Printf("\n%-10s %5s  %9s  %8s %8s %8s  %9s  %9s  %6s\n", "route", "conns",
		"req/s", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "bare CPU", "ratio")
	for _, route := range []string{"/sfu/get", "/get_token"} {
		for _, connections := range []int{1, 16, 128} {
			if err := compare(ctx, ours, bare, world, route, connections, length, rounds); err != nil {
				return err
			}
		}
	}
	return memory(ctx, ours, world, tokens)
}

// build makes the real binary in dir.
func build(ctx context.Context, dir string, flags ...string) (binary string, err error) {
	fmt.Println("Building …")
	binary = filepath.Join(dir, "passerelle")
	arguments := append([]string{"build", "-buildvcs=false", "-o", binary}, flags...)
	if out, err := exec.CommandContext(ctx, "go", append(arguments, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// compare measures both services in turn and prints the medians.
func compare(ctx context.Context, ours, bare *process, world *stubs, route string, connections int, length time.Duration, rounds int) error {
	var mine, theirs []result
	for range rounds {
		for _, side := range []struct {
			p    *process
			into *[]result
		}{{ours, &mine}, {bare, &theirs}} {
			r, err := load(ctx, side.p, world, route, connections, func(started time.Time, _ int) bool { return time.Since(started) < length })
			if err != nil {
				return err
			}
			*side.into = append(*side.into, r)
		}
	}
	median := func(results []result, of func(result) float64) float64 {
		var values []float64
		for _, r := range results {
			values = append(values, of(r))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	cpu := func(r result) float64 { return r.cpu.Seconds() * 1000 / float64(r.requests) }
	var ratios []float64
	for i := range mine {
		ratios = append(ratios, cpu(mine[i])/cpu(theirs[i]))
	}
	slices.Sort(ratios)
	fmt.Printf("%-10s %5d  %9.0f  %8.2f %8.2f %8.2f  %9.3f  %9.3f  %6.2f\n", route, connections,
		median(mine, func(r result) float64 { return float64(r.requests) / r.wall.Seconds() }),
		median(mine, func(r result) float64 { return r.percentile(0.50) }),
		median(mine, func(r result) float64 { return r.percentile(0.95) }),
		median(mine, func(r result) float64 { return r.percentile(0.99) }),
		median(mine, cpu), median(theirs, cpu), ratios[len(ratios)/2])
	return nil
}

// memory asks for many tokens and prints what stays.
func memory(ctx context.Context, ours *process, world *stubs, tokens int) error {
	before, err := ours.rss()
	if err != nil {
		return err
	}
	connections := world.connections.Load()
	if _, err := load(ctx, ours, world, "/get_token", 16, func(_ time.Time, n int) bool { return n < tokens }); err != nil {
		return err
	}
	after, err := ours.rss()
	if err != nil {
		return err
	}
	fmt.Printf("\n%d tokens: memory %.1f MiB before, %.1f MiB after; %d new TLS connections to the homeserver\n",
		tokens, before, after, world.connections.Load()-connections)
	return nil
}

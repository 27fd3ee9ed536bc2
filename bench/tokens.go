package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// warmUp is how many tokens are asked for before memory is looked at: until
// then the heap grows to what the work under way needs.
const warmUp = 10_000

// measureTokens prints what a token costs, by route and number of connections.
func (b *bench) measureTokens(ctx context.Context) error {
	bare, err := startBare(ctx, b.world)
	if err != nil {
		return err
	}
	defer bare.stop()
	printHead()
	for _, route := range []string{"/sfu/get", "/get_token", "/delegate_delayed_leave"} {
		for _, connections := range atOnce {
			if _, err := b.measureRoute(ctx, bare, route, connections); err != nil {
				return err
			}
		}
	}
	return nil
}

// atOnce are the numbers of connections.
var atOnce = []int{1, 16, 128}

func printHead() {
	fmt.Printf("\n%-23s %5s  %9s  %8s %8s %8s %8s  %9s  %9s  %6s  %7s\n", "route", "conns",
		"req/s", "p50 ms", "p95 ms", "p99 ms", "bare p99", "CPU ms", "bare CPU", "ratio", "new TLS")
}

// measureRoute starts Passerelle anew: what one route leaves behind, such as
// leaves that are looked after, is no cost of the next. It returns our processor
// time of each request, in milliseconds.
func (b *bench) measureRoute(ctx context.Context, bare *process, route string, connections int) (float64, error) {
	dir, err := os.MkdirTemp(b.dir, "route-")
	if err != nil {
		return 0, err
	}
	ours, err := startPasserelle(ctx, b.binary, dir, b.world)
	if err != nil {
		return 0, err
	}
	defer ours.stop()
	return b.compare(ctx, ours, bare, route, connections)
}

// compare measures both services in turn and prints the medians. It returns that
// of our processor time.
func (b *bench) compare(ctx context.Context, ours, bare *process, route string, connections int) (float64, error) {
	for _, p := range []*process{ours, bare} {
		// The connections that this many clients need are made once.
		if _, err := load(ctx, p, b.world, route, connections, lasting(b.length/4)); err != nil {
			return 0, err
		}
	}
	var mine, theirs []result
	made := int64(0)
	for range b.rounds {
		before := b.world.connections()
		r, err := load(ctx, ours, b.world, route, connections, lasting(b.length))
		if err != nil {
			return 0, err
		}
		made += b.world.connections() - before
		mine = append(mine, r)
		if r, err = load(ctx, bare, b.world, route, connections, lasting(b.length)); err != nil {
			return 0, err
		}
		theirs = append(theirs, r)
	}
	var ratios []float64
	for i := range mine {
		ratios = append(ratios, mine[i].cpuMS()/theirs[i].cpuMS())
	}
	slices.Sort(ratios)
	name := route
	if route == proxiedRoute {
		name = "proxied get_token"
	}
	fmt.Printf("%-23s %5d  %9.0f  %8.2f %8.2f %8.2f %8.2f  %9.3f  %9.3f  %6.2f  %7d\n", name, connections,
		median(mine, func(r result) float64 { return float64(r.requests) / r.wall.Seconds() }),
		median(mine, func(r result) float64 { return r.percentile(0.50) }),
		median(mine, func(r result) float64 { return r.percentile(0.95) }),
		median(mine, func(r result) float64 { return r.percentile(0.99) }),
		median(theirs, func(r result) float64 { return r.percentile(0.99) }),
		median(mine, result.cpuMS), median(theirs, result.cpuMS), ratios[len(ratios)/2], made)
	return median(mine, result.cpuMS), nil
}

func lasting(length time.Duration) func(time.Time, int) bool {
	return func(started time.Time, _ int) bool { return time.Since(started) < length }
}

func counting(tokens int) func(time.Time, int) bool {
	return func(_ time.Time, n int) bool { return n <= tokens }
}

// measureMemory asks for many tokens and prints what stays.
func (b *bench) measureMemory(ctx context.Context) error {
	ours, err := startPasserelle(ctx, b.binary, b.dir, b.world)
	if err != nil {
		return err
	}
	defer ours.stop()
	atStart, err := ours.rss()
	if err != nil {
		return err
	}
	if _, err := load(ctx, ours, b.world, "/get_token", 16, counting(warmUp)); err != nil {
		return err
	}
	before, err := ours.rss()
	if err != nil {
		return err
	}
	connections := b.world.connections()
	if _, err := load(ctx, ours, b.world, "/get_token", 16, counting(b.tokens)); err != nil {
		return err
	}
	after, err := ours.rss()
	if err != nil {
		return err
	}
	fmt.Printf("\n%d tokens: memory %.1f MiB at the start, %.1f MiB after %d to warm up, %.1f MiB after the rest; %d new TLS connections to the homeserver\n",
		b.tokens, atStart, before, warmUp, after, b.world.connections()-connections)
	return nil
}

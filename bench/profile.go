package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// profiled is a run that samples where our processor time goes. See profile.go
// in the main package.
func profiled(file string) func(context.Context, time.Duration, int, int) error {
	return func(ctx context.Context, length time.Duration, _, _ int) error {
		dir, err := os.MkdirTemp("", "passerelle-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		file, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		binary, err := build(ctx, dir, "-tags", "profile")
		if err != nil {
			return err
		}
		world, err := newStubs(dir)
		if err != nil {
			return err
		}
		defer world.close()
		ours, err := startPasserelle(ctx, binary, dir, world, "BENCH_PROFILE="+file)
		if err != nil {
			return err
		}
		defer ours.stop()
		round := func() (result, error) {
			return load(ctx, ours, world, "/get_token", 16, func(started time.Time, _ int) bool { return time.Since(started) < length })
		}
		if _, err := round(); err != nil { // the first connections
			return err
		}
		if err := ours.command.Process.Signal(syscall.SIGUSR1); err != nil {
			return err
		}
		r, err := round()
		if err != nil {
			return err
		}
		if err := ours.command.Process.Signal(syscall.SIGUSR1); err != nil {
			return err
		}
		// The profile is written in steps of 200 ms.
		time.Sleep(time.Second)
		fmt.Printf("%d requests, %.3f ms of CPU each; read it with go tool pprof -http : %s\n",
			r.requests, r.cpu.Seconds()*1000/float64(r.requests), file)
		return nil
	}
}

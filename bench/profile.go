package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// profile samples where our processor time goes that a token takes on the route.
// See profile.go in the main package.
func (b *bench) profile(ctx context.Context, file, route string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if err := b.build(ctx, "-tags", "profile"); err != nil {
		return err
	}
	ours, err := startPasserelle(ctx, b.binary, b.dir, b.world, "BENCH_PROFILE="+file)
	if err != nil {
		return err
	}
	defer ours.stop()
	if _, err := load(ctx, ours, b.world, route, 16, lasting(b.length)); err != nil {
		return err
	}
	if err := ours.command.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	r, err := load(ctx, ours, b.world, route, 16, lasting(b.length))
	if err != nil {
		return err
	}
	if err := ours.command.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	if err := awaitFile(ctx, file+".allocs"); err != nil {
		return err
	}
	fmt.Printf("%d requests, %.3f ms of CPU each; read it with go tool pprof -http : %s\n", r.requests, r.cpuMS(), file)
	return nil
}

// awaitFile returns when the file is there.
func awaitFile(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(name); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was not written", name)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

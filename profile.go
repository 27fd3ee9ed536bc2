//go:build profile

// The bench builds with the tag profile when it is asked for one. No binary
// that anybody runs has this.

package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

// Between one SIGUSR1 and the next the processor is sampled into the file that
// BENCH_PROFILE names; what was allocated since the start goes beside it.
func init() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			if err := profile(os.Getenv("BENCH_PROFILE"), signals); err != nil {
				fmt.Fprintln(os.Stderr, "profile:", err)
			}
		}
	}()
}

func profile(name string, end <-chan os.Signal) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	<-end
	pprof.StopCPUProfile()
	allocations, err := os.Create(name + ".allocs")
	if err != nil {
		return err
	}
	defer allocations.Close()
	return pprof.Lookup("allocs").WriteTo(allocations, 0)
}

//go:build profile

// The bench builds with the tag profile when it is asked for one. No binary
// that anybody runs has this.

package main

import (
	"errors"
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
	allocations, err := os.Create(name + ".part")
	if err != nil {
		return err
	}
	if err := errors.Join(pprof.Lookup("allocs").WriteTo(allocations, 0), allocations.Close()); err != nil {
		return err
	}
	// With its name it is whole, and so is what was written before it.
	return os.Rename(allocations.Name(), name+".allocs")
}

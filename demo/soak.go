package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"passerelle/demo/chaos"
	"passerelle/demo/crowd"
	"passerelle/demo/town"
)

// playChaos has callers come and go while servers are killed, and says what
// came of it.
func playChaos(ctx context.Context, build town.Options, o options, say text) (err error) {
	fmt.Println(say.starting)
	t, err := town.Start(ctx, build)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && os.MkdirAll(o.out, 0o755) == nil {
			err = errors.Join(err, t.KeepLogs(o.out))
		}
		err = errors.Join(err, t.Stop())
	}()
	began := time.Now()
	report, err := chaos.Run(ctx, t, chaos.Options{
		Joins: o.chaos, AtOnce: min(12, o.chaos), Seed: o.seed, Stays: time.Minute, KillEvery: 15 * time.Second, Restart: true,
		Progress: func(line string) { fmt.Printf("%6s  %s\n", time.Since(began).Round(time.Second), line) },
	})
	if report != nil {
		fmt.Print("\n", report)
	}
	return err
}

// strangersAmong is how many clients there are in all for each one whose
// Passerelle has no token: their homeserver lets it do one thing a second.
const strangersAmong = 200

// playCrowd has a crowd hand its leaves over, and beside it, at another
// homeserver, a few clients of a Passerelle without a token.
func playCrowd(ctx context.Context, build town.Options, o options) error {
	began := time.Now()
	var playing sync.WaitGroup
	failures := make([]error, 2)
	for i, c := range []crowd.Options{
		{Clients: o.leaves, Delay: 12 * time.Minute, KillEvery: time.Minute},
		{Clients: max(10, o.leaves/strangersAmong), Delay: 4 * time.Minute, KillEvery: time.Minute, Stranger: true},
	} {
		c.Python, c.Binary, c.Seed, c.AtOnce = build.Python, build.Binary, o.seed, 6
		name := "all"
		if c.Stranger {
			name = "without a token"
		}
		c.Logs = filepath.Join(o.out, name)
		c.Progress = func(line string) { fmt.Printf("%6s  %s: %s\n", time.Since(began).Round(time.Second), name, line) }
		playing.Go(func() {
			report, err := crowd.Run(ctx, c)
			if report != nil {
				fmt.Print("\n", report, "\n")
			}
			failures[i] = err
		})
	}
	playing.Wait()
	return errors.Join(failures...)
}

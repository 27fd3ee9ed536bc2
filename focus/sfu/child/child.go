// Package child is the program `passerelle sfu`: LiveKit's server, run by
// package sfu. It is the only package that links LiveKit's server.
//
// LiveKit ends the whole process on some of its own faults; that is why it has
// one of its own. There is one in a process: its metrics, its log and its
// statistics are global.
package child

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/livekit/livekit-server/pkg/service"

	"passerelle/focus/sfu"
)

const (
	// stopTimeout is how long the goodbyes to all participants may take.
	stopTimeout = 5 * time.Second
	// closeTimeout is how long LiveKit may take after them.
	closeTimeout = 300 * time.Millisecond
	// pollInterval is how often LiveKit is asked whether it runs; it tells
	// nobody by itself.
	pollInterval = 5 * time.Millisecond
	// pollTimeout bounds one such question.
	pollTimeout = time.Second
)

// Main runs the SFU until a signal, or until nobody holds its leash for the
// orphan timeout. The settings come from stdin. The first SIGTERM or SIGINT
// tells the participants that it is over; the second ends at once. It returns
// the exit code: 0 when it was asked to end and did, else 1.
func Main(stdin io.Reader, stderr io.Writer) int {
	settings, err := sfu.ReadSettings(stdin)
	if err == nil {
		err = run(settings)
	}
	if err != nil {
		fmt.Fprintf(stderr, "passerelle sfu: %v\n", err)
		return 1
	}
	return 0
}

// detach makes the process one that outlives its parent.
func detach() <-chan os.Signal {
	// The parent reads our standard error, and may die: writing is an error
	// then, and not the end. A SIGHUP is meant for the parent, which reads its
	// configuration again.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	syscall.Umask(0o077)
	// Else it is called "exe" in lists of processes.
	_ = os.WriteFile("/proc/self/comm", []byte("passerelle-sfu"), 0)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return signals
}

func run(s sfu.Settings) error {
	signals := detach()
	control, err := sfu.NewControl(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { control.Serve(ctx) })
	defer serving.Wait()
	defer cancel()

	server, err := newServer(s)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Start() }()
	if err := awaitReady(s.Port, ended, signals); err != nil {
		return err
	}
	control.Ready()
	select {
	case err := <-ended:
		return fmt.Errorf("LiveKit ended by itself: %w", cmp.Or(err, errors.New("without a reason")))
	case <-signals:
	case <-control.Orphaned():
	}
	return stop(server, s, ended, signals)
}

// awaitReady returns once LiveKit answers that it is well.
func awaitReady(port int, ended <-chan error, signals <-chan os.Signal) error {
	client := newClient()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("LiveKit did not start: %w", err)
		case <-signals:
			return errors.New("stopped while it started")
		case <-poll.C:
		}
		if answer, err := client.Get(apiURL(port)); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
}

// stop says goodbye to the participants and ends.
func stop(server *service.LivekitServer, s sfu.Settings, ended <-chan error, signals <-chan os.Signal) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), stopTimeout, errors.New("the goodbyes took too long"))
	defer cancel()
	said := make(chan struct{})
	go func() {
		defer close(said)
		goodbye(ctx, server.RoomManager(), s)
	}()
	select {
	case <-said:
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-signals:
		return errors.New("stopped at once by a second signal")
	}
	// What is left would wait up to 5 s for connections that somebody opened
	// and did not use. The end of the process closes them as well.
	go server.Stop(true)
	grace := time.NewTimer(closeTimeout)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
	case <-signals:
	}
	return nil
}

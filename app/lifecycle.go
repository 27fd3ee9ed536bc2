package app

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rs/zerolog"
)

// lifecycle is the list of what runs, in the order in which it was started.
// Everything is stopped in the reverse order, also when the start broke off in
// the middle.
type lifecycle struct {
	log zerolog.Logger

	mu    sync.Mutex
	parts []part

	// failed receives the error of the first part that ended by itself. It
	// holds one; later ones are consequences and dropped.
	failed chan error
}

type part struct {
	name string
	stop func(context.Context) error
}

func newLifecycle(log zerolog.Logger) *lifecycle {
	return &lifecycle{log: log, failed: make(chan error, 1)}
}

// onStop registers how to undo what was just done.
func (l *lifecycle) onStop(name string, stop func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts = append(l.parts, part{name, stop})
}

// run starts work in a goroutine that stop ends: it cancels the context of the
// work and waits. Work that returns before it was stopped has failed, and with
// it the program.
func (l *lifecycle) run(name string, work func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := work(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			select {
			case l.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
		done <- err
	}()
	l.onStop(name, func(stopping context.Context) error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-stopping.Done():
			return fmt.Errorf("still running: %w", context.Cause(stopping))
		}
	})
}

// stop ends everything, last started first. It goes on after errors, since
// what remains must end too, and returns all of them. A second call does
// nothing.
func (l *lifecycle) stop(ctx context.Context) error {
	l.mu.Lock()
	parts := l.parts
	l.parts = nil
	l.mu.Unlock()
	var failures []error
	for i := len(parts) - 1; i >= 0; i-- {
		l.log.Debug().Str("part", parts[i].name).Msg("Stopping")
		if err := parts[i].stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
			failures = append(failures, fmt.Errorf("stop %s: %w", parts[i].name, err))
		}
	}
	return errors.Join(failures...)
}

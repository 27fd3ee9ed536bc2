package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// troubles are the times in which Passerelle or the homeserver was away.
type troubles struct {
	mu       sync.Mutex
	spans    []span
	kills    int
	restarts int
}

// makeTrouble kills Passerelle at random moments and starts it again at once,
// as a service manager would, and restarts the homeserver when half is closed,
// until ctx is done.
func (r *run) makeTrouble(ctx context.Context, half <-chan struct{}) error {
	random := rand.New(rand.NewPCG(r.options.Seed, 2))
	if !r.options.Restart {
		half = nil
	}
	for {
		// From a quarter to seven quarters of the mean.
		pause := r.options.KillEvery/4 + time.Duration(random.Int64N(int64(r.options.KillEvery)*3/2))
		timer := time.NewTimer(pause)
		var err error
		select {
		case <-timer.C:
			err = r.killPasserelle(ctx)
		case <-half:
			half = nil
			err = r.restartHomeserver(ctx)
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

func (r *run) killPasserelle(ctx context.Context) error {
	began := time.Now()
	err := r.home.KillPasserelle()
	if err == nil {
		// The town must not end without one.
		err = r.home.StartPasserelle(context.WithoutCancel(ctx))
	}
	r.troubles.add(span{began, time.Now()}, &r.troubles.kills)
	if err != nil {
		return fmt.Errorf("kill Passerelle and start it again: %w", err)
	}
	return nil
}

func (r *run) restartHomeserver(ctx context.Context) error {
	began := time.Now()
	err := r.home.Homeserver.Stop()
	if err == nil {
		err = r.home.Homeserver.Restart(context.WithoutCancel(ctx))
	}
	s := span{began, time.Now()}
	r.troubles.add(s, &r.troubles.restarts)
	r.say(fmt.Sprintf("the homeserver was away for %s", s.to.Sub(s.from).Round(time.Millisecond)))
	if err != nil {
		return errors.Join(errors.New("restart the homeserver"), err)
	}
	return nil
}

func (t *troubles) add(s span, count *int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, s)
	*count++
}

// around is the end of the last trouble that touches the time from, to; zero
// if none does.
func (t *troubles) around(from, to time.Time) (end time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.spans {
		if s.from.Before(to) && s.to.After(from) && s.to.After(end) {
			end = s.to
		}
	}
	return end
}

package headless

import (
	"context"
	"errors"
	"fmt"
	"time"

	"passerelle/demo/caller"
	"passerelle/demo/town"
)

const (
	// pictureWithin is the longest that a killed SFU may take the picture away.
	pictureWithin = 30 * time.Second
	// betweenKills lets an SFU run for more than the 30 seconds after which its
	// next end counts as a first one: every second kill is that of the other.
	betweenKills = 16 * time.Second
)

// killSFUs kills the SFUs of the two ministries in turn. The one who watches
// through the SFU that died must see the other's picture again without doing
// anything, and nobody may leave the call for either homeserver meanwhile.
func (r *run) killSFUs(ctx context.Context, agnes, bruno *caller.Caller) error {
	for i := range r.options.KillSFU {
		// Each publishes on the SFU of their own ministry.
		victim, watching := r.town.Interieur, bruno
		if i%2 == 1 {
			victim, watching = r.town.Finances, agnes
		}
		if err := r.killSFU(ctx, victim, watching); err != nil {
			return fmt.Errorf("kill %d of %d: %w", i+1, r.options.KillSFU, err)
		}
		if err := r.nobodyLeaves(ctx, betweenKills); err != nil {
			return fmt.Errorf("kill %d of %d: %w", i+1, r.options.KillSFU, err)
		}
	}
	return nil
}

func (r *run) killSFU(ctx context.Context, victim *town.Ministry, watching *caller.Caller) error {
	ctx, cancel := context.WithTimeoutCause(ctx, pictureWithin, fmt.Errorf("not within %s", pictureWithin))
	defer cancel()
	before, err := watching.Streams(ctx)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return errors.New("no picture arrives that could be lost")
	}
	killed, err := victim.KillSFU()
	if err != nil {
		return err
	}
	r.report.Timeline.note(killed, victim.Session, r.say.sfuKilled, "")
	back, err := watching.AwaitNewStream(ctx, before)
	if err != nil {
		return err
	}
	took := back.Sub(killed)
	r.report.PicturesBack = append(r.report.PicturesBack, took)
	r.report.Timeline.note(back, victim.Session, r.say.pictureBack, took.Round(time.Millisecond).String())
	return nil
}

// nobodyLeaves listens to both homeservers for a while.
func (r *run) nobodyLeaves(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case n := <-r.news:
			r.note(n)
			if !n.Joined {
				return fmt.Errorf("%s left the call, as %s saw it, though nobody left", n.User, n.from.Name)
			}
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

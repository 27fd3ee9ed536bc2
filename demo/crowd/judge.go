package crowd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"passerelle/demo/synapse"
)

// judge reads what the homeserver has, and compares it with the parts.
func (r *run) judge(ctx context.Context) (*Report, error) {
	var mu sync.Mutex
	history, waiting := map[string][]synapse.Membership{}, map[string]bool{}
	var reading errgroup.Group
	reading.SetLimit(cap(r.turns))
	for i, room := range r.rooms {
		reading.Go(func() error {
			events, err := r.users[i*perRoom].MembershipHistory(ctx, room)
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				history[e.StateKey] = append(history[e.StateKey], e)
			}
			return err
		})
	}
	for _, user := range r.users {
		reading.Go(func() error {
			delayed, err := user.Delayed(ctx)
			mu.Lock()
			defer mu.Unlock()
			for id := range delayed {
				waiting[id] = true
			}
			return err
		})
	}
	if err := reading.Wait(); err != nil {
		return nil, err
	}
	s := r.place.sfu
	s.mu.Lock()
	defer s.mu.Unlock()
	r.meter.mu.Lock()
	defer r.meter.mu.Unlock()
	report := &Report{
		Most: r.most, Kills: r.kills, Lost: s.lost, Repeated: s.doubled, PutOut: s.putOut,
		Fastest: r.meter.fastest, Queued: r.meter.queued, counted: r.meter.sum(), times: map[end][]time.Duration{},
	}
	for _, c := range r.clients {
		report.judge(c, history[c.key()], waiting[c.delayID])
	}
	return report, report.verdict(len(r.clients))
}

// judge counts the leaves of one client. waiting says whether its delayed leave
// is still to come.
func (report *Report) judge(c *client, events []synapse.Membership, waiting bool) {
	report.Clients++
	there := c.leaving.IsZero()
	joins, leaves := 0, 0
	for _, e := range events {
		if e.Joined {
			joins++
			continue
		}
		leaves++
		report.Leaves++
		if there || e.Sent.Before(c.leaving) {
			report.False = append(report.False, c.String())
		} else {
			report.times[c.end] = append(report.times[c.end], e.Sent.Sub(c.leaving))
		}
	}
	switch {
	case there:
		report.There++
	case leaves == 0:
		report.Missing = append(report.Missing, c.String())
	case leaves > 1:
		report.Doubled = append(report.Doubled, c.String())
	}
	switch {
	case joins != 1:
		report.Strange = append(report.Strange, fmt.Sprintf("%s: joined %d times", c, joins))
	case waiting != there:
		report.Strange = append(report.Strange, fmt.Sprintf("%s: its delayed leave waits: %t", c, waiting))
	}
}

// verdict is an error that names all that must not be.
func (report *Report) verdict(clients int) error {
	var failures []error
	for _, bad := range []struct {
		what string
		who  []string
	}{
		{"clients that left and have no leave", report.Missing},
		{"clients with more than one leave", report.Doubled},
		{"leaves of clients that were there", report.False},
		{"clients that Passerelle put out", report.PutOut},
		{"clients that are not as they should be", report.Strange},
	} {
		if len(bad.who) > 0 {
			failures = append(failures, fmt.Errorf("%s: %d: %q", bad.what, len(bad.who), bad.who[:min(10, len(bad.who))]))
		}
	}
	if report.Clients != clients || report.Leaves+report.There < clients {
		failures = append(failures, fmt.Errorf("%d of %d clients played; %d leaves and %d who are there", report.Clients, clients, report.Leaves, report.There))
	}
	if report.Kills == 0 {
		failures = append(failures, errors.New("nothing killed Passerelle"))
	}
	return errors.Join(failures...)
}

package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"passerelle/demo/synapse"
)

const (
	// slack is what our own look at the SFU may be late.
	slack = time.Second
	// liveKitTimeout is LiveKit's own: 10 seconds without a packet and 5 more.
	// Where it learns earlier that something broke, it asks the client to come
	// back, and Passerelle waits for that.
	liveKitTimeout = 15 * time.Second
	// LeaveWithin is from LiveKit's timeout, or from its giving somebody up where
	// that is later, to the other homeserver's news of it, where nothing was away.
	LeaveWithin = 500 * time.Millisecond
	// recovery is how long after a trouble leaves may still be late by it:
	// connections are made again, and pauses between tries run out.
	recovery = 5 * time.Second
)

// judge reads what the homeservers have and compares it with the parts.
func (r *run) judge(ctx context.Context) (*Report, error) {
	report := &Report{Kills: r.troubles.kills, Restarts: r.troubles.restarts, times: map[string][]time.Duration{}}
	// Events that were sent twice would come now.
	if err := wait(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	history := map[string][]synapse.Membership{}
	for i, room := range r.rooms {
		events, err := r.users[i*roomSize].MembershipHistory(ctx, room)
		if err != nil {
			return nil, err
		}
		for _, e := range events {
			history[e.StateKey] = append(history[e.StateKey], e)
		}
		for _, at := range []*synapse.User{r.users[i*roomSize], r.other.Watcher} {
			now, err := at.Memberships(ctx, room)
			if err != nil {
				return nil, err
			}
			for _, m := range now {
				if m.Joined {
					report.Ghosts = append(report.Ghosts, fmt.Sprintf("%s, as %s has it", m.StateKey, at.UserID))
				}
			}
		}
	}
	for _, user := range r.users {
		waiting, err := user.Delayed(ctx)
		if err != nil {
			return nil, err
		}
		report.LeftBehind = slices.AppendSeq(report.LeftBehind, maps.Values(waiting))
	}
	for _, g := range r.guests {
		r.judgeGuest(report, g, history[g.stateKey()])
	}
	return report, report.verdict(r.options.Joins)
}

// judgeGuest follows one device through its events.
func (r *run) judgeGuest(report *Report, g *guest, events []synapse.Membership) {
	report.Guests++
	in, leaves := false, 0
	for _, e := range events {
		if e.Joined {
			in = true
			continue
		}
		leaves++
		if !in {
			report.Doubled = append(report.Doubled, g.String())
		}
		in = false
		r.judgeLeave(report, g, e)
	}
	expected := 1
	if g.ejected {
		expected++
	}
	if leaves != expected {
		report.Miscounted = append(report.Miscounted, fmt.Sprintf("%s: %d leaves, and not %d", g, leaves, expected))
	}
	if g.heard > 0 {
		report.Heard++
	}
}

// judgeLeave asks whether one leave was right, and how long it took.
func (r *run) judgeLeave(report *Report, g *guest, leave synapse.Membership) {
	report.Leaves++
	seen := r.memberships.seenAt(leave.EventID)
	if !g.leaving.IsZero() && leave.Sent.After(g.leaving.Add(-slack)) {
		r.time(report, string(g.kind)+": asked to be seen", g.leaving, seen)
		return
	}
	gone, isGone := r.gone(g, leave.Sent.Add(slack))
	if !isGone || g.struck.IsZero() {
		report.ThrownOut = append(report.ThrownOut, fmt.Sprintf("%s: at %s, gone from the SFU: %t", g, leave.Sent.Format(time.TimeOnly), isGone))
		return
	}
	if g.kind == tabKill {
		report.times["LiveKit gives up on a killed tab"] = append(report.times["LiveKit gives up on a killed tab"], gone.Sub(g.struck))
	}
	r.time(report, "given up by LiveKit to be sent", gone, leave.Sent)
	r.time(report, "given up by LiveKit to be seen", gone, seen)
	if due := g.struck.Add(liveKitTimeout); due.After(gone) {
		gone = due
	}
	r.time(report, afterTimeout, gone, seen)
}

// gone is since when none of the guest's identities was at the SFU.
func (r *run) gone(g *guest, at time.Time) (since time.Time, gone bool) {
	for _, identity := range g.identities {
		t, isGone := r.presence.gone(identity, at)
		if !isGone {
			return time.Time{}, false
		}
		if t.After(since) {
			since = t
		}
	}
	return since, len(g.identities) > 0
}

// time notes how long something took; on a line of its own, and from when all
// was there again, if Passerelle or the homeserver was away meanwhile.
func (r *run) time(report *Report, what string, from, to time.Time) {
	if to.IsZero() {
		report.Unseen++
		return
	}
	if end := r.troubles.around(from.Add(-recovery), to); !end.IsZero() {
		what += ", after trouble"
		if end.After(from) {
			from = end
		}
	}
	report.times[what] = append(report.times[what], max(0, to.Sub(from)))
}

// verdict is an error that names all that must not be.
func (report *Report) verdict(joins int) error {
	var failures []error
	for _, bad := range []struct {
		what string
		who  []string
	}{
		{"ghosts in a call", report.Ghosts},
		{"put out of the call wrongly", report.ThrownOut},
		{"leaves sent twice", report.Doubled},
		{"leaves miscounted", report.Miscounted},
		{"delayed leaves left behind", report.LeftBehind},
	} {
		if len(bad.who) > 0 {
			failures = append(failures, fmt.Errorf("%s: %d: %q", bad.what, len(bad.who), bad.who[:min(10, len(bad.who))]))
		}
	}
	if report.Guests != joins || report.Unseen > 0 {
		failures = append(failures, fmt.Errorf("%d of %d guests played, %d leaves never seen by the other ministry", report.Guests, joins, report.Unseen))
	}
	if joins >= roomSize && report.Heard == 0 {
		failures = append(failures, errors.New("nobody heard anybody"))
	}
	if late := percentile(report.times[afterTimeout], 95); late > LeaveWithin {
		failures = append(failures, fmt.Errorf("leaves come %s after LiveKit's timeout (95 %%), not within %s", late, LeaveWithin))
	}
	return errors.Join(failures...)
}

package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"passerelle/demo/synapse"
	"passerelle/demo/timing"
)

const (
	// slack is what our own look at the SFU may be late.
	slack = time.Second
	// liveKitTimeout is LiveKit's own: 10 seconds without a packet and 5 more.
	liveKitTimeout = 15 * time.Second
	// reconnectWait is how long Passerelle waits for those whom LiveKit gives up
	// earlier than that: it does so when something broke, and asks the client to
	// come back at once.
	reconnectWait = 7 * time.Second
	// LeaveWithin is how late the other homeserver may learn of it, where nothing
	// was away: from when LiveKit gave somebody up, where that was after its
	// timeout; else from the end of reconnectWait, or that timeout where it is
	// later. As all that has to do with speed it is a figure, and no failure.
	LeaveWithin = 500 * time.Millisecond
	// absurd is what cannot be a slow machine.
	absurd = 5 * time.Second
	// recovery is how long after a trouble leaves may still be late by it:
	// connections are made again, and pauses between tries run out.
	recovery = 5 * time.Second
)

// judge reads what the homeservers have and compares it with the parts.
func (r *run) judge(ctx context.Context) (*Report, error) {
	report := &Report{Kills: r.troubles.kills, Restarts: r.troubles.restarts, times: map[string][]time.Duration{}}
	// Events that were sent twice would come now.
	if err := timing.Wait(ctx, 2*time.Second); err != nil {
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
		report.Guests++
		if g.heard > 0 {
			report.Heard++
		}
		for i := range g.memberships {
			r.judgeMembership(report, g, i, history[g.memberships[i].key])
		}
	}
	return report, report.verdict(r.options.Joins)
}

// judgeMembership follows one of a guest's memberships through its events.
func (r *run) judgeMembership(report *Report, g *guest, n int, events []synapse.Membership) {
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
		r.judgeLeave(report, g, n, e)
	}
	expected := 1
	if len(g.memberships) == 1 {
		// It had the same one each time.
		expected += g.rejoins
		if g.ejected {
			expected++
		}
	}
	if leaves != expected {
		report.Miscounted = append(report.Miscounted, fmt.Sprintf("%s: %d leaves, and not %d", g, leaves, expected))
	}
}

// judgeLeave asks whether one leave was right, and how long it took.
func (r *run) judgeLeave(report *Report, g *guest, n int, leave synapse.Membership) {
	report.Leaves++
	seen := r.memberships.seenAt(leave.EventID)
	replaced := n < len(g.memberships)-1
	if !replaced && !g.leaving.IsZero() && leave.Sent.After(g.leaving.Add(-slack)) {
		r.time(report, string(g.kind)+": asked to be seen", g.leaving, seen)
		return
	}
	gone, isGone := r.gone(g.memberships[n].identities, leave.Sent)
	stranded := !g.stranded.IsZero() && leave.Sent.After(g.stranded)
	struck := !g.struck.IsZero() && !leave.Sent.Before(g.struck)
	if !isGone || !struck && !stranded && !replaced {
		report.ThrownOut = append(report.ThrownOut, fmt.Sprintf("%s: at %s, gone from the SFU: %t", g, leave.Sent.Format(time.TimeOnly), isGone))
		return
	}
	if !struck {
		return // when its client gave up, or its page was closed, nobody noted
	}
	if g.kind == tabKill {
		report.times["LiveKit gives up on a killed tab"] = append(report.times["LiveKit gives up on a killed tab"], gone.Sub(g.struck))
	}
	r.time(report, "given up by LiveKit to be sent", gone, leave.Sent)
	r.time(report, "given up by LiveKit to be seen", gone, seen)
	due, what := gone, afterTimeout
	if timeout := g.struck.Add(liveKitTimeout); gone.Before(timeout) {
		what = afterBreak
		if due = gone.Add(reconnectWait); due.Before(timeout) {
			due = timeout
		}
	}
	r.time(report, what, due, seen)
}

// gone is since when none of the identities was at the SFU, at that time or a
// little later: it may be back a moment after it was put out.
func (r *run) gone(identities []string, at time.Time) (since time.Time, gone bool) {
	for late := time.Duration(0); late <= slack; late += askEvery {
		if since, gone = r.goneAt(identities, at.Add(late)); gone {
			break
		}
	}
	return since, gone
}

func (r *run) goneAt(identities []string, at time.Time) (since time.Time, gone bool) {
	for _, identity := range identities {
		there, left := r.presence.at(identity, at)
		if there {
			return time.Time{}, false
		}
		if left.After(since) {
			since = left
		}
	}
	return since, !since.IsZero()
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
	for _, what := range []string{afterTimeout, afterBreak} {
		if late := timing.Percentile(report.times[what], 95); late > absurd {
			failures = append(failures, fmt.Errorf("%s takes %s (95 %%), more than %s", what, late, absurd))
		}
	}
	return errors.Join(failures...)
}

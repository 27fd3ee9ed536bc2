package chaos

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
)

// noon is when a test's calls begin.
var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func second(n float64) time.Time { return noon.Add(time.Duration(n * float64(time.Second))) }

func TestPlan(t *testing.T) {
	for _, n := range []int{1, 12, 300} {
		a := plan(rand.New(rand.NewPCG(7, 1)), n, time.Minute)
		require.Equal(t, a, plan(rand.New(rand.NewPCG(7, 1)), n, time.Minute), "the seed decides")
		require.Len(t, a, n)
		kinds := map[kind]int{}
		for i, s := range a {
			require.Equal(t, i, s.number)
			kinds[s.kind]++
		}
		if n >= 12 {
			require.Len(t, kinds, len(shares), "everything happens to somebody")
		}
	}
}

func TestPresence(t *testing.T) {
	p := newPresence()
	p.note(second(1), map[string]bool{"a": true})
	p.note(second(2), map[string]bool{"a": true, "b": true})
	p.note(second(3), map[string]bool{"b": true})
	p.note(second(5), map[string]bool{"a": true, "b": true})
	for _, test := range []struct {
		who         string
		at          float64
		there, left bool
	}{
		{"a", 0, false, false}, {"a", 1, true, false}, {"a", 2.9, true, false}, {"a", 3, false, true}, {"a", 4.9, false, true},
		{"a", 5, true, false}, {"a", 9, true, false}, {"b", 1, false, false}, {"b", 9, true, false}, {"c", 9, false, false},
	} {
		there, left := p.at(test.who, second(test.at))
		require.Equal(t, test.there, there, "%s at %v", test.who, test.at)
		require.Equal(t, test.left, !left.IsZero(), "%s at %v", test.who, test.at)
		if test.left {
			require.Equal(t, second(3), left)
		}
	}
}

// TestJudge: each thing that must not be is found, and nothing else.
func TestJudge(t *testing.T) {
	type event struct {
		at     float64
		joined bool
	}
	joined, left := func(at float64) event { return event{at, true} }, func(at float64) event { return event{at, false} }
	for name, test := range map[string]struct {
		guest guest
		// gone is from when the SFU does not have the guest; 0 is never.
		gone   float64
		events []event
		want   func(*Report) []string
	}{
		"the button":             {guest: guest{leaving: second(5)}, gone: 5, events: []event{joined(0), left(5.1)}},
		"put out, and back then": {guest: guest{script: script{kind: cut}, struck: second(5), ejected: true, leaving: second(40)}, gone: 29.5, events: []event{joined(0), left(29.8), joined(30), left(40.1)}},
		"a killed tab":           {guest: guest{script: script{kind: tabKill}, struck: second(5)}, gone: 20, events: []event{joined(0), left(20.1)}},
		"cut off, and back":      {guest: guest{script: script{kind: cut}, struck: second(5), ejected: true, leaving: second(40)}, gone: 20, events: []event{joined(0), left(20.1), joined(30), left(40.1)}},
		"its client gave up":     {guest: guest{stranded: second(5), rejoins: 1, leaving: second(60)}, gone: 29.5, events: []event{joined(0), left(29.8), joined(30), left(60.1)}},
		"never left":             {guest: guest{leaving: second(5)}, gone: 5, events: []event{joined(0)}, want: func(r *Report) []string { return r.Miscounted }},
		"left twice":             {guest: guest{leaving: second(5)}, gone: 5, events: []event{joined(0), left(5.1), left(5.2)}, want: func(r *Report) []string { return r.Doubled }},
		"put out while there":    {guest: guest{leaving: second(50)}, gone: 50, events: []event{joined(0), left(5)}, want: func(r *Report) []string { return r.ThrownOut }},
		"given up by us alone":   {guest: guest{script: script{kind: cut}, struck: second(5)}, events: []event{joined(0), left(10)}, want: func(r *Report) []string { return r.ThrownOut }},
		"given up by us, early":  {guest: guest{script: script{kind: tabKill}, struck: second(5)}, gone: 20, events: []event{joined(0), left(10)}, want: func(r *Report) []string { return r.ThrownOut }},
		"put out after a reload": {guest: guest{script: script{kind: reload}, leaving: second(50)}, gone: 50, events: []event{joined(0), joined(5), left(20), left(50)}, want: func(r *Report) []string { return r.ThrownOut }},
	} {
		t.Run(name, func(t *testing.T) {
			r := &run{presence: newPresence(), memberships: newMemberships()}
			g := test.guest
			g.user, g.memberships = nil, []membership{{identities: []string{"who"}}}
			r.presence.note(second(0), map[string]bool{"who": true})
			if test.gone > 0 {
				r.presence.note(second(test.gone), nil)
			}
			if g.ejected {
				r.presence.note(second(30), map[string]bool{"who": true})
			}
			var events []synapse.Membership
			for i, e := range test.events {
				m := synapse.Membership{EventID: id.EventID(rune('a' + i)), Joined: e.joined, Sent: second(e.at)}
				r.memberships.note(m.Sent.Add(50*time.Millisecond), m)
				events = append(events, m)
			}
			report := &Report{Guests: 1, times: map[string][]time.Duration{}}
			r.judgeMembership(report, &g, 0, events)
			if test.want == nil {
				require.NoError(t, report.verdict(1))
				return
			}
			require.NotEmpty(t, test.want(report))
			require.Error(t, report.verdict(1))
		})
	}
}

// TestJudgeReload: the page that was closed has a membership of its own, which
// ends once it is gone, and not before.
func TestJudgeReload(t *testing.T) {
	for at, wrong := range map[float64]bool{3: true, 20.1: false} {
		r := &run{presence: newPresence(), memberships: newMemberships()}
		r.presence.note(second(0), map[string]bool{"old": true})
		r.presence.note(second(6), map[string]bool{"old": true, "new": true})
		r.presence.note(second(20), map[string]bool{"new": true})
		g := &guest{script: script{kind: reload}, leaving: second(50), memberships: []membership{
			{key: "a", identities: []string{"old"}}, {key: "b", identities: []string{"new"}},
		}}
		report := &Report{Guests: 1, times: map[string][]time.Duration{}}
		r.judgeMembership(report, g, 0, []synapse.Membership{{EventID: "1", Joined: true, Sent: second(0)}, {EventID: "2", Sent: second(at)}})
		require.Equal(t, wrong, len(report.ThrownOut) == 1)
		require.Equal(t, wrong, report.verdict(1) != nil)
	}
}

// TestThere: what never becomes active is there for a while only.
func TestThere(t *testing.T) {
	p := &livekit.ParticipantInfo{State: livekit.ParticipantInfo_JOINED, JoinedAt: noon.Unix()}
	require.True(t, isThere(p, second(24)))
	require.False(t, isThere(p, second(26)))
	p.State = livekit.ParticipantInfo_ACTIVE
	require.True(t, isThere(p, second(3600)))
	p.State = livekit.ParticipantInfo_DISCONNECTED
	require.False(t, isThere(p, second(1)))
}

// TestDue: those whom LiveKit gives up early have their time to come back.
func TestDue(t *testing.T) {
	for gone, want := range map[float64]struct {
		what string
		late time.Duration
	}{
		6.5:  {afterBreak, 500 * time.Millisecond},   // seen at 20.5, LiveKit's timeout at 20
		15:   {afterBreak, 500 * time.Millisecond},   // seen at 22.5, back by 22
		25.2: {afterTimeout, 500 * time.Millisecond}, // at once
	} {
		r := &run{presence: newPresence(), memberships: newMemberships()}
		r.presence.note(second(0), map[string]bool{"who": true})
		r.presence.note(second(gone), nil)
		seen := second(max(gone+7, 20) + 0.5)
		if gone > 20 {
			seen = second(gone + 0.5)
		}
		leave := synapse.Membership{EventID: "leave", Sent: seen.Add(-100 * time.Millisecond)}
		r.memberships.note(seen, leave)
		report := &Report{times: map[string][]time.Duration{}}
		r.judgeLeave(report, &guest{script: script{kind: tabKill}, struck: second(5), memberships: []membership{{identities: []string{"who"}}}}, 0, leave)
		require.Empty(t, report.ThrownOut)
		require.Len(t, report.times[want.what], 1, "%v", gone)
		require.InDelta(t, want.late, report.times[want.what][0], float64(time.Millisecond), "%v", gone)
	}
}

// TestLate: leaves that come absurdly late are a failure, unless something was
// away.
func TestLate(t *testing.T) {
	for name, away := range map[string]bool{"nothing was away": false, "Passerelle was away": true} {
		t.Run(name, func(t *testing.T) {
			r := &run{presence: newPresence(), memberships: newMemberships()}
			if away {
				r.troubles.add(span{second(19), second(21)}, &r.troubles.kills)
			}
			report := &Report{Guests: 1, times: map[string][]time.Duration{}}
			r.time(report, afterTimeout, second(20), second(26))
			if away {
				require.NoError(t, report.verdict(1))
			} else {
				require.Error(t, report.verdict(1))
			}
			require.Contains(t, report.String(), map[bool]string{false: "6s", true: "5s"}[away])
		})
	}
}

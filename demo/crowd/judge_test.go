package crowd

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/demo/synapse"
)

var noon = time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC)

// TestJudge: each thing that must not be is found, and named.
func TestJudge(t *testing.T) {
	const join, before, after = "join", "leave before it went", "leave after it went"
	for name, test := range map[string]struct {
		end     end
		events  []string
		waiting bool
		want    func(*Report) []string // empty: all is well
	}{
		"went":                     {goodbye, []string{join, after}, false, nil},
		"is there":                 {stays, []string{join}, true, nil},
		"went without a leave":     {killed, []string{join}, false, func(r *Report) []string { return r.Missing }},
		"its leave is still to go": {goodbye, []string{join, after}, true, func(r *Report) []string { return r.Strange }},
		"left twice":               {own, []string{join, after, after}, false, func(r *Report) []string { return r.Doubled }},
		"left too early":           {button, []string{join, before}, false, func(r *Report) []string { return r.False }},
		"is there and left":        {stays, []string{join, after}, false, func(r *Report) []string { return r.False }},
		"is there, nothing waits":  {stays, []string{join}, false, func(r *Report) []string { return r.Strange }},
		"joined twice":             {goodbye, []string{join, join, after}, false, func(r *Report) []string { return r.Strange }},
		"never joined":             {goodbye, []string{after}, false, func(r *Report) []string { return r.Strange }},
	} {
		t.Run(name, func(t *testing.T) {
			c := &client{part: part{end: test.end}}
			if test.end != stays {
				c.leaving = noon
			}
			var events []synapse.Membership
			for _, what := range test.events {
				sent := noon
				if what == before {
					sent = noon.Add(-time.Millisecond)
				}
				events = append(events, synapse.Membership{Joined: what == join, Sent: sent})
			}
			report := &Report{Kills: 1, times: map[end][]time.Duration{}}
			report.judge(c, events, test.waiting)
			if test.want == nil {
				require.NoError(t, report.verdict(1))
				return
			}
			require.Len(t, test.want(report), 1)
			require.ErrorContains(t, report.verdict(1), test.want(report)[0])
		})
	}
}

// TestVerdict: nor is a run good in which less happened than should have.
func TestVerdict(t *testing.T) {
	require.NoError(t, (&Report{Clients: 2, Leaves: 1, There: 1, Kills: 1}).verdict(2))
	require.Error(t, (&Report{Clients: 2, Leaves: 1, There: 1}).verdict(2), "nothing was killed")
	require.Error(t, (&Report{Clients: 1, Leaves: 1, Kills: 1}).verdict(2), "one did not play")
	require.Error(t, (&Report{Clients: 1, Leaves: 1, Kills: 1, PutOut: []string{"x"}}).verdict(1))
}

// TestPlan: who is killed and who stays is so of any crowd.
func TestPlan(t *testing.T) {
	const delay = time.Minute
	for n, rare := range map[int]int{60: 2, 1000: 10, 10_000: 100} {
		ends := map[end]int{}
		for _, p := range plan(rand.New(rand.NewPCG(1, 1)), n, delay, false) {
			ends[p.end]++
			if p.end == button || p.end == own || p.end == goodbye {
				require.Greater(t, p.stay, delay)
			}
		}
		require.Equal(t, rare, ends[killed]+ends[unreported], "%d", n)
		require.Equal(t, ends[killed], ends[unreported], "%d", n)
		require.Positive(t, ends[stays], "%d", n)
		require.Equal(t, n-rare-ends[stays], ends[button]+ends[own]+ends[goodbye], "%d", n)
	}
	for _, p := range plan(rand.New(rand.NewPCG(1, 1)), 100, delay, true) {
		require.NotEqual(t, proxied, p.route, "a stranger's homeserver hands nothing over")
	}
}

// TestMeter: the counters of processes that follow one another are added up.
func TestMeter(t *testing.T) {
	const text = `# HELP passerelle_leave_jobs Delayed leaves.
passerelle_leave_jobs{state="connected"} 40
passerelle_leave_jobs{state="sending"} 2
passerelle_leave_queued 7
passerelle_leave_actions_total{action="restart",outcome="done"} 30
passerelle_leave_actions_total{action="send",outcome="not_found"} 1
passerelle_leave_lateness_seconds_bucket{action="restart",le="0.5"} 20
passerelle_leave_lateness_seconds_bucket{action="restart",le="10"} 30
passerelle_leave_lateness_seconds_bucket{action="restart",le="+Inf"} 30
`
	s, queued, err := parse(strings.NewReader(text))
	require.NoError(t, err)
	require.EqualValues(t, 7, queued)
	require.EqualValues(t, 42, s.jobs)
	require.Equal(t, map[string]float64{"restart done": 30, "send not_found": 1}, s.actions)
	require.Equal(t, []string{"≤ 0.5 s: 20", "≤ 10 s: 10"}, s.within("restart"))

	m := newMeter("")
	m.note(s, queued, noon)
	again, _, err := parse(strings.NewReader(strings.ReplaceAll(text, "} 30", "} 32")))
	require.NoError(t, err)
	m.note(again, 3, noon.Add(time.Second))
	m.note(s, 0, noon.Add(2*time.Second)) // another process
	require.EqualValues(t, 62, m.sum().actions["restart done"])
	require.EqualValues(t, 2, m.fastest)
	require.EqualValues(t, 7, m.queued)
	require.Equal(t, 42, m.leaves())
}

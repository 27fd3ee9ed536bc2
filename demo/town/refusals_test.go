package town_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// warmUps are rounds that do not count.
const warmUps = 3

// refusal is one way not to be in a room, which may not be told from another.
type refusal struct {
	name string
	ask  func() answer
	took []time.Duration
}

// refusals are those of one user on one way. The first is of a room that there
// is.
func refusals(b *testing.B, w *town.Town, v way, user *synapse.User) []*refusal {
	b.Helper()
	room := func() *scene {
		made, err := w.Interieur.User.CreateCallRoom(b.Context(), "Réunion", false)
		require.NoError(b, err)
		return &scene{b, w, made}
	}
	never, left, banned := room(), room(), room()
	left.join(user)
	left.leave(user)
	banned.join(user)
	banned.moderate("ban")(banned, user)
	time.Sleep(forgotten)
	var all []*refusal
	for _, r := range []struct {
		name string
		room id.RoomID
	}{
		{"never", never.room}, {"left", left.room}, {"banned", banned.room},
		{"unknown", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"}, {"unknown-older", id.RoomID("!unknown:" + w.Interieur.ServerName())},
		{"malformed", "!r"}, {"no-room", "r"},
	} {
		all = append(all, &refusal{name: r.name, ask: v.ready(b, w, user, r.room)})
	}
	return all
}

// BenchmarkRefusals measures, for each route, how long a refusal takes of a
// room that there is, and in how much of that time one of another comes, in
// medians of rounds in which each is asked for in turn.
func BenchmarkRefusals(b *testing.B) {
	w, _ := newTown(b, func(o *town.Options) { o.Unlimited = true })
	for i, v := range append(ways(), handovers()...) {
		for _, side := range []struct {
			on       bool
			ministry *town.Ministry
			name     string
		}{{v.local, w.Interieur, "local"}, {v.remote, w.Finances, "remote"}} {
			if !side.on {
				continue
			}
			b.Run(v.name+"-"+side.name, func(b *testing.B) {
				user := account(b, side.ministry, fmt.Sprintf("%s%d", side.name, i))
				measure(b, refusals(b, w, v, user), side.name == "remote" && v.name != "relayed")
			})
		}
	}
}

// measure asks in rounds. Those that are asked for again for seconds, as a join
// may be on its way, are asked for side by side.
func measure(b *testing.B, all []*refusal, atOnce bool) {
	var want string
	round := 0
	ask := func() {
		got := make([]answer, len(all))
		var asking sync.WaitGroup
		for n := range all {
			i := (n + round) % len(all) // nobody is always the first
			one := func() {
				began := time.Now()
				got[i] = all[i].ask()
				all[i].took = append(all[i].took, time.Since(began))
			}
			if atOnce {
				asking.Go(one)
			} else {
				one()
			}
		}
		asking.Wait()
		for i, a := range got {
			require.Equal(b, http.StatusForbidden, a.Status, "%s: %s", all[i].name, a.Body)
			if want == "" {
				want = a.Body
			}
			require.Equal(b, want, a.Body, all[i].name)
		}
		round++
	}
	for range warmUps {
		ask()
	}
	for _, r := range all {
		r.took = nil
	}
	for b.Loop() {
		ask()
	}
	b.ReportMetric(0, "ns/op") // a round's is nobody's
	b.ReportMetric(float64(median(all[0].took).Microseconds())/1000, "ms/"+all[0].name)
	for _, r := range all[1:] {
		b.ReportMetric(float64(median(r.took))/float64(median(all[0].took)), r.name+"/"+all[0].name)
	}
}

func median(took []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)/2]
}

package town_test

import (
	"bufio"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// refusals hold every refusal against the first.
type refusals struct {
	t    *testing.T
	town *town.Town
	body string
	// costs are what the first refusal by each way was, for users of each side.
	costs map[string]cost
}

// cost is what a refusal may show beside its body: the header that came with it
// and what the homeservers were asked.
type cost struct {
	header    http.Header
	questions map[string]int
}

// require: the user is refused, in the same words and at the same cost as
// others on this way.
func (r *refusals) require(name string, v way, user *synapse.User, room id.RoomID) {
	r.t.Helper()
	before := asked(r.t, r.town)
	got := v.ask(r.t, r.town, user, room)
	r.same(name, v, got)
	local := user.HomeserverURL.Host == r.town.Interieur.User.HomeserverURL.Host
	now := cost{got.Header, asked(r.t, r.town)}
	for question, n := range now.questions {
		now.questions[question] = n - before[question]
		if !local && v.name != "relayed" {
			// A join may be on its way: how often it is asked is left to chance.
			now.questions[question] = min(now.questions[question], 1)
		}
	}
	key := fmt.Sprint(v.name, local)
	first, ok := r.costs[key]
	if !ok {
		r.costs[key] = now
		first = now
		total := 0
		for _, n := range now.questions {
			total += n
		}
		require.Equal(r.t, 1, total, "%s: %v", v.name, now.questions)
	}
	require.Equal(r.t, first, now, "%s: %s", v.name, name)
}

// same: the answer is the refusal that everybody gets.
func (r *refusals) same(name string, v way, got answer) {
	r.t.Helper()
	require.Equal(r.t, http.StatusForbidden, got.Status, "%s: %s: %s", v.name, name, got.Body)
	if r.body == "" {
		require.Contains(r.t, got.Body, "M_FORBIDDEN")
		r.body = got.Body
	}
	require.Equal(r.t, r.body, got.Body, "%s: %s", v.name, name)
}

// question is a line of the metrics: which question, with which outcome, how
// often.
var question = regexp.MustCompile(`^passerelle_homeserver_questions_total\{outcome="[a-z]+",question="([a-z_]+)"\} ([0-9]+)$`)

// asked is how often each homeserver was asked what it may be for a token.
func asked(t testing.TB, w *town.Town) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for _, m := range []*town.Ministry{w.Interieur, w.Finances} {
		answer, err := http.Get(m.PrivateURL + "/metrics")
		require.NoError(t, err)
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			var n int
			found := question.FindStringSubmatch(lines.Text())
			if found == nil || !slices.Contains([]string{"is_joined", "joined_members", "fed_proxy"}, found[1]) {
				continue
			}
			_, err := fmt.Sscan(found[2], &n)
			require.NoError(t, err)
			counts[m.Session+" "+found[1]] += n
		}
		require.NoError(t, answer.Body.Close())
	}
	return counts
}

// stranger is somebody who gets no token for a room.
type stranger struct {
	name string
	user *synapse.User
	room id.RoomID
}

// strangers of the ministry are not joined for all the reasons there are.
func (s *scene) strangers(m *town.Ministry, elsewhere id.RoomID) (all []stranger) {
	for _, st := range states() {
		user := member(s.t, m, "bench-"+strings.ReplaceAll(st.name, " ", "-"))
		switch st.name {
		case "joined", "still joined", "back again":
			continue
		}
		st.enter(s, user)
		if st.after != nil {
			st.after(s, user)
		}
		all = append(all, stranger{st.name, user, s.room})
	}
	for i, room := range []struct {
		name string
		id   id.RoomID
	}{
		{"unknown", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"}, {"elsewhere", elsewhere},
		{"malformed", "!r"}, {"no-room", "r"},
	} {
		all = append(all, stranger{room.name, member(s.t, m, fmt.Sprint("bench-", i)), room.id})
	}
	return all
}

// BenchmarkRefusals measures how long each refusal takes on each way, in rounds
// of one request of each stranger in any order. The figures are the medians
// beside that of all: what differs from 1 tells strangers something.
func BenchmarkRefusals(b *testing.B) {
	for _, limit := range []string{"ADDRESS", "SERVER", "USER"} {
		b.Setenv("PASSERELLE_FOCUS_LIMITS_"+limit, "100000")
	}
	w, _ := newTown(b)
	s := &scene{b, w, w.Room}
	elsewhere, err := w.Finances.User.CreateCallRoom(b.Context(), "Finances seules", false)
	require.NoError(b, err)
	_, err = w.Interieur.User.SendStateEvent(b.Context(), s.room, event.StateJoinRules, "", map[string]string{"join_rule": "knock"})
	require.NoError(b, err)
	ours, theirs := s.strangers(w.Interieur, elsewhere), s.strangers(w.Finances, elsewhere)
	time.Sleep(forgotten)
	for _, v := range append(ways(), handovers()...) {
		if v.local {
			b.Run(v.name+"/ours", func(b *testing.B) { refuse(b, w, v, ours, false) })
		}
		if v.remote {
			b.Run(v.name+"/theirs", func(b *testing.B) { refuse(b, w, v, theirs, v.name != "relayed") })
		}
	}
}

// refuse has each stranger ask once in every round: one after the other, or at
// once where most of the time is waiting.
func refuse(b *testing.B, w *town.Town, v way, strangers []stranger, atOnce bool) {
	const warmUp = 5
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	round := func(counts bool) {
		var asking sync.WaitGroup
		for _, i := range rand.Perm(len(strangers)) {
			ask := func() {
				got := v.ask(b, w, strangers[i].user, strangers[i].room)
				require.Equal(b, http.StatusForbidden, got.Status, got.Body)
				mu.Lock()
				defer mu.Unlock()
				if counts {
					took[strangers[i].name] = append(took[strangers[i].name], got.Took)
				}
			}
			if atOnce {
				asking.Go(ask)
			} else {
				ask()
			}
		}
		asking.Wait()
	}
	for range warmUp {
		round(false)
	}
	for b.Loop() {
		round(true)
	}
	b.ReportMetric(0, "ns/op")
	all := middle(slices.Concat(slices.Collect(maps.Values(took))...))
	b.ReportMetric(all.Seconds()*1000, "all-ms")
	for name, times := range took {
		b.ReportMetric(float64(middle(times))/float64(all), name+"/all")
	}
}

// middle is the median.
func middle(times []time.Duration) time.Duration {
	slices.SortFunc(times, cmp.Compare)
	return times[len(times)/2]
}

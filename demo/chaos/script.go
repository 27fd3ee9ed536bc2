package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// kind is what a guest does after having joined.
type kind string

const (
	// button: it sends its leave itself and says goodbye to the SFU.
	button kind = "button"
	// goodbye: it says goodbye to the SFU alone.
	goodbye kind = "goodbye to the SFU"
	// reload: its connections break and the same identity is back at once, with
	// another delayed leave.
	reload kind = "reload"
	// tabKill: its process is killed.
	tabKill kind = "tab killed"
	// cut: its network is gone for cutFor, and then back.
	cut kind = "15 s without network"
	// freeze: its process is stopped for freezeFor, and then goes on.
	freeze kind = "stopped for 6 s"
	// sleep: its process is stopped and never goes on.
	sleep kind = "stopped for good"
	// stay: it stays for longer than its delayed leave would wait.
	stay kind = "stays past its delay"
)

const (
	cutFor    = 15 * time.Second
	freezeFor = 6 * time.Second
	hour      = time.Hour
)

// route is how a guest hands over its delayed leave.
type route string

const (
	legacy   route = "/sfu/get"
	inline   route = "/get_token"
	separate route = "/delegate_delayed_leave"
)

// script is one guest's part.
type script struct {
	number int
	kind   kind
	route  route
	// delay is how long its delayed leave waits.
	delay time.Duration
	// before is how long it is in the call until it does something, after how
	// long from then until it leaves.
	before, after time.Duration
	// sameMember: after a reload it has the member ID that it had.
	sameMember bool
}

func (s script) device() string { return fmt.Sprintf("CHAOS%04d", s.number) }

// shares say how many of a hundred guests do what.
var shares = []struct {
	kind  kind
	share int
}{
	{button, 16}, {goodbye, 16}, {reload, 22}, {tabKill, 20}, {cut, 9}, {freeze, 7}, {sleep, 4}, {stay, 6},
}

// plan writes the parts of n guests. stays is the delay that those have who
// stay past it.
func plan(random *rand.Rand, n int, stays time.Duration) []script {
	var kinds []kind
	for _, s := range shares {
		for range max(1, (s.share*n+50)/100) {
			kinds = append(kinds, s.kind)
		}
	}
	for len(kinds) < n {
		kinds = append(kinds, tabKill)
	}
	random.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	// Those who stay longest come first, so that the end does not wait for them.
	slices.SortStableFunc(kinds[:min(n, len(kinds))], func(a, b kind) int {
		switch {
		case n > 40 || (a == stay) == (b == stay):
			return 0
		case a == stay:
			return -1
		}
		return 1
	})
	routes := []route{legacy, inline, separate}
	var scripts []script
	for i, k := range kinds[:n] {
		s := script{
			number: i, kind: k, route: routes[random.IntN(len(routes))], delay: hour,
			before:     time.Second + time.Duration(random.Int64N(int64(4*time.Second))),
			sameMember: random.IntN(2) == 0,
			after:      time.Second + time.Duration(random.Int64N(int64(3*time.Second))),
		}
		if k == stay {
			s.delay, s.before = stays, stays+stays/4
		}
		scripts = append(scripts, s)
	}
	return scripts
}

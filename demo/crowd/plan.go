package crowd

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// end is how a client's part ends.
type end string

const (
	// button: it has its delayed leave sent itself, and says goodbye to the SFU.
	button end = "button"
	// own: it sends a leave of its own, cancels the delayed one, and says goodbye.
	own end = "own leave, delayed one cancelled"
	// goodbye: it says goodbye to the SFU alone.
	goodbye end = "goodbye to the SFU"
	// killed: it is gone without a word, and the SFU reports that after its timeout.
	killed end = "killed"
	// unreported: the same, and nobody ever reports it.
	unreported end = "killed, report lost"
	// stays: it is there when all is over.
	stays end = "stays"
)

// route is how a client asks for its token and hands its leave over.
type route string

const (
	legacy   route = "/sfu/get"
	inline   route = "/get_token"
	separate route = "/delegate_delayed_leave"
	// proxied is through the homeserver (MSC4195).
	proxied route = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/"
)

// part is one client's part.
type part struct {
	number int
	end    end
	route  route
	// sticky: it says that it is in the call with sticky events (MSC4354), and
	// not with state.
	sticky bool
	// stay is how long it is in the call at least.
	stay time.Duration
}

func (p part) device() string { return fmt.Sprintf("CROWD%05d", p.number) }

func (p part) String() string {
	return fmt.Sprintf("client %d (%s, %s, sticky %t)", p.number, p.end, p.route, p.sticky)
}

// plan writes the parts of n clients: of each hundred one is killed, two stay,
// and the others leave in one of three ways after longer than their leave would
// have waited. Every second killed one is never reported.
func plan(random *rand.Rand, n int, delay time.Duration, stranger bool) []part {
	ends := make([]end, n)
	for i := range ends {
		ends[i] = []end{button, own, goodbye}[i%3]
	}
	rare := max(2, n/100)
	for i := range min(rare, n) {
		ends[i] = []end{killed, unreported}[i%2]
	}
	for i := rare; i < min(rare+2*max(1, n/100), n); i++ {
		ends[i] = stays
	}
	random.Shuffle(n, func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	routes := []route{proxied, legacy, proxied, inline, proxied, separate}
	if stranger {
		routes = routes[:0:0]
		routes = append(routes, legacy, inline, separate)
	}
	var parts []part
	for i, e := range ends {
		p := part{
			number: i, end: e, route: routes[random.IntN(len(routes))], sticky: random.IntN(2) == 0,
			stay: delay + delay/10 + time.Duration(random.Int64N(int64(delay/10))),
		}
		if e == killed || e == unreported {
			p.stay = delay/10 + time.Duration(random.Int64N(int64(delay/2)))
		}
		parts = append(parts, p)
	}
	return parts
}

package focus

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// fill lets requests of a server in until one is refused.
func fill(g *gate, server string) int {
	n := 0
	for g.enter(server) {
		n++
	}
	return n
}

func TestSlowServersLeaveRoomForTheNext(t *testing.T) {
	g := newGate(maxInWork)
	require.Equal(t, maxInWork/(share+1), fill(g, "slow"), "an eighth of what it leaves free")
	for i := range 20 {
		require.Positive(t, fill(g, "slow "+strconv.Itoa(i)))
	}
	require.GreaterOrEqual(t, fill(g, "well"), 32, "as many as a homeserver is asked at once")
	require.LessOrEqual(t, g.inWork(), maxInWork)
}

// However many names a stranger can make up, the bound holds, and what left
// is forgotten.
func TestTheGateIsBounded(t *testing.T) {
	g := newGate(maxInWork)
	admitted := map[string]int{}
	for i := range 10_000 {
		server := strconv.Itoa(i)
		admitted[server] = fill(g, server)
	}
	require.LessOrEqual(t, g.inWork(), maxInWork)
	require.LessOrEqual(t, len(g.of), maxInWork)
	for server, n := range admitted {
		for range n {
			g.leave(server)
		}
	}
	require.Zero(t, g.inWork())
	require.Empty(t, g.of)
	require.Equal(t, maxInWork/(share+1), fill(g, "well"), "as on the first day")
}

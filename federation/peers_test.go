package federation

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheServersAskedLastAreKept(t *testing.T) {
	ps := newPeers(3)
	first, err := ps.acquire("a")
	require.NoError(t, err)
	ps.release(first)
	for i := range 100 {
		again, err := ps.acquire("a")
		require.NoError(t, err)
		require.Same(t, first, again, "it is asked all the time")
		ps.release(again)
		p, err := ps.acquire(strconv.Itoa(i))
		require.NoError(t, err)
		ps.release(p)
		require.LessOrEqual(t, len(ps.known), 3)
		require.Equal(t, len(ps.known), ps.order.Len())
	}
}

func TestAServerThatIsBeingAskedIsNotForgotten(t *testing.T) {
	ps := newPeers(2)
	a, err := ps.acquire("a")
	require.NoError(t, err)
	_, err = ps.acquire("b")
	require.NoError(t, err)
	_, err = ps.acquire("c")
	require.ErrorIs(t, err, errCrowded)
	again, err := ps.acquire("a")
	require.NoError(t, err, "those that are known are served")
	require.Same(t, a, again)
	ps.release(a)
	ps.release(again)
	_, err = ps.acquire("c")
	require.NoError(t, err)
}

func TestCountByState(t *testing.T) {
	ps := newPeers(10)
	for _, name := range []string{"a", "b", "c"} {
		_, err := ps.acquire(name)
		require.NoError(t, err)
	}
	p, err := ps.acquire("b")
	require.NoError(t, err)
	fail(t, p)
	require.Equal(t, []int{2, 1, 0}, []int{ps.count(closed), ps.count(open), ps.count(halfOpen)})
}

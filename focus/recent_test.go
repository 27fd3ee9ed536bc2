package focus

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

func TestRecent(t *testing.T) {
	now := time.Now()
	r := newRecent(5 * time.Second)
	require.False(t, r.has("a", now))
	r.add("a", now)
	require.True(t, r.has("a", now.Add(5*time.Second-1)))
	require.False(t, r.has("a", now.Add(5*time.Second)))
	require.False(t, r.has("b", now))

	r.add("b", now)
	r.forget("a")
	require.False(t, r.has("a", now))
	require.True(t, r.has("b", now))
	r.forgetAll()
	require.False(t, r.has("b", now))
}

func TestRecentIsBounded(t *testing.T) {
	now := time.Now()
	r := newRecent(5 * time.Second)
	for i := range maxRecent + 1 {
		r.add(matrixrtc.SFURoom(strconv.Itoa(i)), now)
	}
	require.LessOrEqual(t, len(r.done), maxRecent)
	require.True(t, r.has(matrixrtc.SFURoom(strconv.Itoa(maxRecent)), now), "the newest is kept")
	r.add("later", now.Add(6*time.Second))
	require.Len(t, r.done, 1, "what is too old goes")
}

func TestRecentOfNoTime(t *testing.T) {
	r := newRecent(0)
	r.add("a", time.Now())
	require.False(t, r.has("a", time.Now()))
	require.Empty(t, r.done)
}

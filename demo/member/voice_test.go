package member

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatIsHeardIsWhatWasSaid: a voice is its speaker's, each frame counts
// once, and what is not as it was sent counts as wrong.
func TestWhatIsHeardIsWhatWasSaid(t *testing.T) {
	var e Ear
	last := e.hear("ana", frame("ana", 1), 0)
	last = e.hear("ana", frame("ana", 3), last)
	last = e.hear("ana", frame("ana", 2), last)
	last = e.hear("ana", frame("ana", 3), last)
	require.Equal(t, map[string]int{"ana": 2}, e.Heard())
	require.Zero(t, e.Wrong())
	changed := frame("ana", 4)
	changed[20] ^= 1
	for n, payload := range [][]byte{changed, frame("bo", 4), frame("ana", 4)[:20], append(frame("ana", 4), 0), {opus}} {
		require.Equal(t, last, e.hear("ana", payload, last))
		require.Equal(t, n+1, e.Wrong())
	}
	require.Equal(t, 2, e.total())
}

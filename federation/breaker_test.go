package federation

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPausesGrowAndOneProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := newPeers(time.Now)
		ask := func(answered bool) error {
			leave, err := peers.enter(t.Context(), "hs")
			if err == nil {
				leave(answered)
			}
			return err
		}
		for range breakAfter {
			require.NoError(t, ask(false))
		}
		require.ErrorIs(t, ask(true), errPaused)
		require.Equal(t, 1, peers.paused())

		time.Sleep(firstPause)
		probe, err := peers.enter(t.Context(), "hs")
		require.NoError(t, err)
		require.ErrorIs(t, ask(true), errPaused, "while one probes, others do not")
		probe(false)
		require.ErrorIs(t, ask(true), errPaused)

		for range 10 { // however often it fails, the pause has a cap
			time.Sleep(maxPause)
			require.NoError(t, ask(false))
		}
		time.Sleep(maxPause)
		require.NoError(t, ask(true))
		for range breakAfter {
			require.NoError(t, ask(false), "an answer makes it start over")
		}
	})
}

func TestTurnsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := newPeers(time.Now)
		var leaves []func(bool)
		for range maxInFlight {
			leave, err := peers.enter(t.Context(), "hs")
			require.NoError(t, err)
			leaves = append(leaves, leave)
		}
		entered := make(chan struct{})
		go func() {
			leave, err := peers.enter(t.Context(), "hs")
			require.NoError(t, err)
			close(entered)
			leave(true)
		}()
		synctest.Wait()
		select {
		case <-entered:
			t.Fatal("more questions under way than allowed")
		default:
		}
		leaves[0](true)
		<-entered
		for _, leave := range leaves[1:] {
			leave(true)
		}
	})
}

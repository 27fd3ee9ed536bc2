package federation

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// asked is one question to the peer with that verdict.
func asked(t *testing.T, p *peer, v verdict) error {
	t.Helper()
	leave, err := p.enter(t.Context())
	if err == nil {
		leave(v)
	}
	return err
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	p, err := newPeers(1).acquire("hs")
	require.NoError(t, err)
	return p
}

// fail makes the peer fail until it is left alone.
func fail(t *testing.T, p *peer) {
	t.Helper()
	for range breakAfter {
		require.NoError(t, asked(t, p, failed))
	}
	require.Equal(t, open, p.breaker.state())
}

func TestOneProbesAfterThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		fail(t, p)
		require.ErrorIs(t, asked(t, p, answered), errPaused)

		time.Sleep(firstPause)
		require.Equal(t, halfOpen, p.breaker.state())
		probe, err := p.enter(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, asked(t, p, answered), errPaused, "while one probes, others do not")
		require.True(t, probe(answered))
		require.Equal(t, closed, p.breaker.state())
		fail(t, p) // as many failures as at first
	})
}

func TestPausesGrowToACap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		fail(t, p)
		for pause := firstPause; pause < 4*maxPause; pause *= 2 {
			least, most := min(pause, maxPause)/2, min(pause, maxPause)
			time.Sleep(least - time.Nanosecond)
			require.ErrorIs(t, asked(t, p, failed), errPaused, "%s", pause)
			time.Sleep(most - least + time.Nanosecond)
			require.NoError(t, asked(t, p, failed), "%s", pause)
		}
	})
}

func TestFailuresFarApartDoNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		for range 3 * breakAfter {
			require.NoError(t, asked(t, p, failed))
			time.Sleep(breakWindow + time.Nanosecond)
		}
		fail(t, p)
	})
}

func TestAnAnswerMakesFailuresForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		for i := range 5 * breakAfter {
			v := failed
			if i%breakAfter == breakAfter-1 {
				v = answered
			}
			require.NoError(t, asked(t, p, v))
		}
	})
}

// Strangers who go away must neither silence a server nor keep one that is
// down from being left alone.
func TestThoseWhoGoAwaySayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		for range 10 * breakAfter {
			require.NoError(t, asked(t, p, noVerdict))
		}
		for range breakAfter - 1 {
			require.NoError(t, asked(t, p, failed))
			require.NoError(t, asked(t, p, noVerdict))
		}
		require.NoError(t, asked(t, p, failed))
		require.ErrorIs(t, asked(t, p, answered), errPaused)

		time.Sleep(firstPause)
		require.NoError(t, asked(t, p, noVerdict), "the probe")
		require.NoError(t, asked(t, p, answered), "the next one probes instead")
		require.Equal(t, closed, p.breaker.state())
	})
}

// Questions that were under way when the breaker opened must not lengthen the
// pause when they fail in turn.
func TestLateFailuresDoNotLengthenThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		var leaves []func(verdict) bool
		for range maxInFlight {
			leave, err := p.enter(t.Context())
			require.NoError(t, err)
			leaves = append(leaves, leave)
		}
		changes := 0
		for _, leave := range leaves {
			if leave(failed) {
				changes++
			}
		}
		require.Equal(t, 1, changes)
		time.Sleep(firstPause)
		require.NoError(t, asked(t, p, answered))
	})
}

func TestTurnsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		var leaves []func(verdict) bool
		for range maxInFlight {
			leave, err := p.enter(t.Context())
			require.NoError(t, err)
			leaves = append(leaves, leave)
		}
		entered := make(chan error, 1)
		go func() { entered <- asked(t, p, answered) }()
		synctest.Wait()
		require.Empty(t, entered, "more questions under way than allowed")
		leaves[0](answered)
		require.NoError(t, <-entered)
		for _, leave := range leaves[1:] {
			leave(answered)
		}
	})
}

// Who asks for a server that is left alone hears so at once, also while all
// turns are taken.
func TestNobodyWaitsForAServerThatIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		for range maxInFlight {
			_, err := p.enter(t.Context())
			require.NoError(t, err)
		}
		for range breakAfter {
			p.breaker.report(failed, false)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := p.enter(ctx)
		require.ErrorIs(t, err, errPaused)
	})
}

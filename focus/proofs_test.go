package focus

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

func TestAProofIsGoodForOneUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProofs(10)
		token := proofOf(matrixrtc.OpenIDToken{AccessToken: "t", MatrixServerName: "hs"})
		call := useOf("@ana:hs", "room", "DEV")
		require.False(t, p.usedElsewhere(token, call))
		for range 3 {
			require.True(t, p.bind(token, call), "the same again is good")
			require.False(t, p.usedElsewhere(token, call))
		}
		for _, other := range []digest{
			useOf("@ana:hs", "other", "DEV"), useOf("@ana:hs", "room", "OTHER"), useOf("@eve:hs", "room", "DEV"), useOf("@ana:hs", "roomDEV", ""),
		} {
			require.True(t, p.usedElsewhere(token, other))
			require.False(t, p.bind(token, other))
		}
		for _, other := range []matrixrtc.OpenIDToken{{AccessToken: "t", MatrixServerName: "other"}, {AccessToken: "u", MatrixServerName: "hs"}} {
			require.False(t, p.usedElsewhere(proofOf(other), useOf("@ana:hs", "other", "DEV")), "each server's tokens are its own")
		}

		time.Sleep(proofLife - time.Nanosecond)
		require.False(t, p.bind(token, useOf("@ana:hs", "other", "DEV")))
		time.Sleep(time.Nanosecond)
		require.False(t, p.usedElsewhere(token, useOf("@ana:hs", "other", "DEV")), "it has expired, and no homeserver says yes any more")
		require.True(t, p.bind(token, useOf("@ana:hs", "other", "DEV")))
		require.False(t, p.bind(token, call))
	})
}

// The bound holds, the oldest goes first, and what has expired goes by itself.
func TestProofsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100
		p := newProofs(limit)
		proof := func(n int) digest { return digestOf(strconv.Itoa(n)) }
		call, other := digestOf("call"), digestOf("other")
		for n := range 100 * limit {
			require.True(t, p.bind(proof(n), call))
			require.LessOrEqual(t, len(p.uses), limit)
			require.Len(t, p.order, limit)
			time.Sleep(time.Millisecond)
		}
		for n := range limit {
			require.True(t, p.usedElsewhere(proof(99*limit+n), other))
		}
		require.False(t, p.usedElsewhere(proof(99*limit-1), other))

		time.Sleep(proofLife)
		require.True(t, p.bind(proof(0), call))
		require.Len(t, p.uses, 1)
		require.Equal(t, 1, p.used)
	})
}

// A use that expired is bound anew without growing the order for ever.
func TestProofsComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProofs(3)
		for range 100 {
			for n := range 3 {
				require.True(t, p.bind(digestOf(strconv.Itoa(n)), digestOf("call")))
			}
			time.Sleep(proofLife)
		}
		require.Len(t, p.uses, 3)
		require.Equal(t, 3, p.used)
		require.Len(t, p.order, 3)
	})
}

func BenchmarkProofs(b *testing.B) {
	p := newProofs(maxProofs)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		proof := proofOf(matrixrtc.OpenIDToken{AccessToken: "kQ0uABCDEFGHIJKLMNOPQRST" + strconv.Itoa(n), MatrixServerName: "agent.example.gouv.fr"})
		now := useOf("@firstname.lastname-example.gouv.fr:agent.example.gouv.fr", "F4oOprKFBq6JHqy2qYpq6UQQmR7hCvxkQQoUrd0+SbI", "ABCDEFGHIJ")
		if p.usedElsewhere(proof, now) || !p.bind(proof, now) {
			b.Fatal("refused")
		}
	}
}

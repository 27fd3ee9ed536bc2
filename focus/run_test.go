package focus_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus"
)

// What takes long does not come more seldom for it, but for what takes so long
// that nothing else would be done.
func TestSlowRoundsComeAsOften(t *testing.T) {
	const every = 4 * time.Second
	for _, c := range []struct{ takes, least, most time.Duration }{
		{0, every, every * 3 / 2},
		{3 * time.Second, every, every * 3 / 2},
		{20 * time.Second, 21 * time.Second, 21 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var began []time.Time
			err := new(focus.Service).Repeat(ctx, every, func(context.Context) error {
				began = append(began, time.Now())
				time.Sleep(c.takes)
				if len(began) == 200 {
					cancel()
				}
				return nil
			})
			require.NoError(t, err)
			for i := 1; i < len(began); i++ {
				between := began[i].Sub(began[i-1])
				require.GreaterOrEqual(t, between, c.least)
				require.LessOrEqual(t, between, c.most)
			}
		})
	}
}

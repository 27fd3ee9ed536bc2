package federation_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/federation"
)

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := federation.NewLimits(config.Limits{Address: 2, Server: 3, User: 1})
		for range 20 {
			require.Zero(t, limits.Address("192.0.2.1"))
		}
		require.Equal(t, 500*time.Millisecond, limits.Address("192.0.2.1"))
		require.Equal(t, 500*time.Millisecond, limits.Address("192.0.2.1"), "asking in vain costs nothing")
		require.Zero(t, limits.Address("192.0.2.2"), "others are not held up")
		time.Sleep(500 * time.Millisecond)
		require.Zero(t, limits.Address("192.0.2.1"))
		require.NotZero(t, limits.Address("192.0.2.1"))

		for range 30 {
			require.Zero(t, limits.Server("hs"))
		}
		require.NotZero(t, limits.Server("hs"))
		require.NotZero(t, limits.Server("HS"), "however it is spelled")
		for range 10 {
			require.Zero(t, limits.User("@a:hs"))
		}
		require.NotZero(t, limits.User("@a:hs"))
		require.Zero(t, limits.User("@b:hs"))
	})
}

func TestLimitsTakeAnIPv6NetworkForOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := federation.NewLimits(config.Limits{Address: 1})
		for i := range 10 {
			require.Zero(t, limits.Address(fmt.Sprintf("2001:db8:1:2::%x", i)))
		}
		require.NotZero(t, limits.Address("2001:db8:1:2:ffff::1"))
		require.Zero(t, limits.Address("2001:db8:1:3::1"))
		require.Zero(t, limits.Server("any"), "0 is no limit")
	})
}

func TestLimitsForgetInsteadOfGrowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := federation.NewLimits(config.Limits{User: 1})
		for range 10 {
			require.Zero(t, limits.User("@first:hs"))
		}
		require.NotZero(t, limits.User("@first:hs"))
		for i := range 10_000 {
			require.Zero(t, limits.User(id.UserID(fmt.Sprintf("@%d:hs", i))))
		}
		require.Zero(t, limits.User("@first:hs"), "the one used longest ago is forgotten")
	})
}

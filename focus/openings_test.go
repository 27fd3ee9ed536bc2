package focus

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

func TestCallsThatOneUserStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOpenings()
		room := func(n int) matrixrtc.SFURoom { return matrixrtc.SFURoom(strconv.Itoa(n)) }
		for n := range maxOpenings {
			require.Zero(t, o.take("@ana:hs", room(n), openingTime))
			time.Sleep(time.Second)
		}
		require.Equal(t, openingTime-maxOpenings*time.Second, o.take("@ana:hs", room(99), openingTime))
		require.Zero(t, o.take("@ana:hs", room(0), openingTime), "a call that is started already")
		require.Zero(t, o.take("@bo:hs", room(99), openingTime), "somebody else")

		time.Sleep(openingTime - maxOpenings*time.Second)
		require.Zero(t, o.take("@ana:hs", room(99), openingTime))
		require.Equal(t, time.Second, o.take("@ana:hs", room(98), openingTime), "one for one")
	})
}

func TestOpeningsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOpenings()
		for n := range 2 * maxOpeners {
			require.Zero(t, o.take(id.UserID(strconv.Itoa(n)), "room", openingTime))
		}
		require.Equal(t, maxOpeners, o.known.Len())
		for n := range 100_000 {
			o.take("@ana:hs", matrixrtc.SFURoom(strconv.Itoa(n)), openingTime)
			time.Sleep(10 * time.Second)
		}
		ana, known := o.known.Peek("@ana:hs")
		require.True(t, known)
		rooms := ana.rooms
		require.LessOrEqual(t, len(rooms), maxOpenings)
		require.LessOrEqual(t, cap(rooms), 4*maxOpenings)
	})
}

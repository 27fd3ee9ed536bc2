package leave_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	"passerelle/focus/matrixrtc"
)

// Without a token a homeserver is called as seldom as it wants of a stranger:
// first what is due, and nothing is refused.
func TestPace(t *testing.T) {
	inTown(t, func(w *town) {
		w.home.limit = rate.NewLimiter(1, 5)
		const many = 60
		for i := range many {
			who := matrixrtc.Identity("u" + strconv.Itoa(i))
			w.hand(who, "d"+string(who), hour)
		}
		for i := range many {
			who := matrixrtc.Identity("u" + strconv.Itoa(i))
			w.joins(who, "PA_"+string(who))
		}
		require.Positive(w.t, w.metric("passerelle_leave_queued"))
		w.leaves("u59", "PA_u59", "CLIENT_INITIATED")
		w.pass(3 * time.Second)
		require.Equal(w.t, "sent", w.home.fate("du59"), "sent before others are put off")
		w.pass(4 * hour)
		require.Zero(w.t, w.metric("passerelle_leave_queued"))
		for _, c := range w.home.got("", "") {
			require.NotEqual(w.t, http.StatusTooManyRequests, c.status)
			require.Empty(w.t, c.token)
		}
		for i := range many - 1 {
			require.Empty(w.t, w.home.fate("du"+strconv.Itoa(i)))
		}
	})
}

// With more than can be done, those who would be taken to have left first come
// first.
func TestPaceIsFair(t *testing.T) {
	inTown(t, func(w *town) {
		for i := range 40 {
			who := matrixrtc.Identity("u" + strconv.Itoa(i))
			w.hand(who, "d"+string(who), hour)
			w.joins(who, "PA_"+string(who))
		}
		w.hand("short", "dshort", 20*time.Second)
		w.joins("short", "PA_short")
		w.pass(hour)
		require.Empty(w.t, w.home.fate("dshort"))
		fired := 0
		for i := range 40 {
			if w.home.fate("du"+strconv.Itoa(i)) != "" {
				fired++
			}
		}
		require.Zero(w.t, fired)
	})
}

func TestToken(t *testing.T) {
	inTown(t, func(w *town) {
		for i := range 100 {
			who := matrixrtc.Identity("u" + strconv.Itoa(i))
			w.hand(who, "d"+string(who), hour)
			w.joins(who, "PA_"+string(who))
		}
		w.pass(10 * time.Second)
		got := w.home.got("restart", "")
		require.Len(w.t, got, 100, "not paced")
		for _, c := range got {
			require.Equal(w.t, "Bearer as-token", c.token)
		}
		require.NotContains(w.t, w.log.String(), "as-token")
	}, func(w *town) { w.token = "as-token" })
}

func TestTokenIsWrong(t *testing.T) {
	inTown(t, func(w *town) {
		w.home.misbehave(func(string, string, int) (int, http.Header, string) {
			if len(w.home.calls) == 0 {
				return 401, nil, `{"errcode":"M_UNKNOWN_TOKEN"}`
			}
			return 0, nil, ""
		})
		w.hand("ana", "d1", hour)
		w.joins("ana", "PA_1")
		got := w.home.got("", "")
		require.Len(w.t, got, 2)
		require.Equal(w.t, []string{"Bearer as-token", ""}, []string{got[0].token, got[1].token})
		require.Contains(w.t, w.log.String(), "homeserver.as_token")
	}, func(w *town) { w.token = "as-token" })
}

// TestTokenIsShownAgain: a homeserver that did not know the token for a moment, or
// for one start, is shown it again after a while, by one call; and once it knows it,
// calls are not paced any more.
func TestTokenIsShownAgain(t *testing.T) {
	inTown(t, func(w *town) {
		w.home.limit = rate.NewLimiter(1, 5)
		w.home.estrange(true)
		for i := range 20 {
			who := matrixrtc.Identity("u" + strconv.Itoa(i))
			w.hand(who, "d"+string(who), time.Minute)
			w.joins(who, "PA_"+string(who))
		}
		shown := func(calls []call) (n int) {
			for _, c := range calls {
				require.NotEqual(w.t, http.StatusTooManyRequests, c.status)
				if c.token != "" {
					n++
				}
			}
			return n
		}
		w.pass(14 * time.Minute)
		require.Equal(w.t, 3, shown(w.home.got("", "")), "at first, and each five minutes")
		require.Equal(w.t, 1, strings.Count(w.log.String(), "does not know homeserver.as_token"))

		w.home.estrange(false)
		w.pass(2 * time.Minute)
		before := w.home.got("", "")
		require.Equal(w.t, 1, strings.Count(w.log.String(), "knows homeserver.as_token again"))
		w.pass(10 * time.Minute)
		since := w.home.got("", "")[len(before):]
		require.Equal(w.t, len(since), shown(since))
		require.Greater(w.t, len(since), 300)
		require.Empty(w.t, w.home.got("send", ""))
	}, func(w *town) { w.token = "as-token" })
}

// Our own homeserver says whether it has delayed events; one that says nothing
// is believed to.
func TestSupport(t *testing.T) {
	inTown(t, func(w *town) {
		require.False(w.t, w.Available())
		w.home.mu.Lock()
		w.home.features = `{"org.matrix.msc4140":true}`
		w.home.mu.Unlock()
		w.pass(time.Minute)
		require.True(w.t, w.Available())
		w.home.mu.Lock()
		w.home.features = `nothing`
		w.home.mu.Unlock()
		w.pass(hour)
		require.True(w.t, w.Available())
	}, func(w *town) { w.own, w.home.features = true, `{}` })
}

// Ten thousand leaves of people who stay are put off in time, by few calls at
// once.
func TestTenThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const many = 10_000
	inMemory(t, func(w *town) {
		for i := range many {
			who := matrixrtc.Identity("u" + strconv.Itoa(i))
			w.home.schedule("d"+string(who), hour)
			d := matrixrtc.DelayedLeave{Room: room, Identity: who, User: "@u:" + server, Server: server, DelayID: matrixrtc.DelayID("d" + who), Delay: hour}
			d.Room += matrixrtc.SFURoom(strconv.Itoa(i / 100))
			d.User += "x"
			require.NoError(w.t, w.Delegate(w.t.Context(), d))
			w.SFUEvent(w.t.Context(), matrixrtc.SFUEvent{Type: matrixrtc.ParticipantJoined, Room: d.Room, Identity: who, ParticipantSID: "PA"})
		}
		w.pass(4 * hour)
		require.Zero(w.t, w.metric("passerelle_leave_queued"))
		got := w.home.got("", "")
		require.False(w.t, slices.ContainsFunc(got, func(c call) bool { return c.what != "restart" || c.status != 200 }))
		require.InDelta(w.t, many*(1+4*60/30.75), len(got), many*1.1)
	}, func(w *town) {
		w.token = "token"
		w.timing.MaxPerUser, w.timing.LookEvery = many, 0
	})
}

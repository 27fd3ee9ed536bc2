package focus_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// together is an SFU that closes no room before it is asked for all.
type together struct {
	focus.SFU
	all sync.WaitGroup
}

func (s *together) End(ctx context.Context, _ matrixrtc.SFURoom) error {
	s.all.Done()
	asked := make(chan struct{})
	go func() { s.all.Wait(); close(asked) }()
	select {
	case <-asked:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An SFU that does not answer about one call does not prolong the next.
func TestLongCallsEndTogether(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		sfu := &together{}
		w := newWorldWith(t, db, func(o *focus.Options) {
			sfu.SFU = o.SFUs["embedded"]
			o.SFUs["embedded"] = sfu
		})
		w.bound(matrixrtc.Bounds{Longest: time.Hour}, matrixrtc.Bounds{})
		for n, room := range []string{"!roomid", "!another"} {
			request := strings.NewReplacer("!roomid", room, `"tok"`, `"`+room+`"`).Replace(legacyRequest)
			status, answer := w.ask(t, "/sfu/get", request)
			require.Equal(t, http.StatusOK, status, answer)
			require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: room, Type: matrixrtc.ParticipantJoined,
				Room: w.signed[n].Room, Identity: ana, ParticipantSID: "PA_1", At: time.Now(), Publish: everything}))
		}
		sfu.all.Add(2)
		w.SetClock(func() time.Time { return time.Now().Add(2 * time.Hour) })
		began := time.Now()
		_, err := w.EndLongCalls(t.Context(), "")
		require.NoError(t, err)
		require.Less(t, time.Since(began), 5*time.Second)
		calls, err := w.store.Running(t.Context(), "", 10)
		require.NoError(t, err)
		require.Empty(t, calls)
	})
}

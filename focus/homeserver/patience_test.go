package homeserver_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/focus/homeserver"
)

// slow is a homeserver that takes its time, unless nobody waits.
type slow struct {
	takes time.Duration
	body  string
	asked atomic.Int64
}

func (s *slow) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	select {
	case <-time.After(s.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(s.body)), Request: r}, nil
}

func slowMembership(s *slow, log zerolog.Logger) *homeserver.Membership {
	return homeserver.NewMembership(homeserver.NewClient(homeserver.Options{URL: "http://hs.example/", Token: "as-token", Transport: s}), "own.example", log)
}

// TestEqualQuestionsAreOne: and who asks it for all may give up, which lets them
// go at once and fails nobody else.
func TestEqualQuestionsAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{takes: time.Second, body: `{"joined":true}`}
		m := slowMembership(s, zerolog.Nop())
		began := time.Now()
		impatient, giveUp := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() {
			_, err := m.Joined(impatient, room, ana)
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, 100*time.Millisecond, time.Since(began))
		})
		synctest.Wait()
		for range 20 {
			asking.Go(func() {
				joined, err := m.Joined(t.Context(), room, ana)
				require.NoError(t, err)
				require.True(t, joined)
				require.Equal(t, 1100*time.Millisecond, time.Since(began))
			})
		}
		time.Sleep(100 * time.Millisecond)
		giveUp()
		asking.Wait()
		require.EqualValues(t, 2, s.asked.Load(), "one for the impatient, one for all others")
	})
}

// TestWhoGivesUpWaitsForNoJoin that may be on its way.
func TestWhoGivesUpWaitsForNoJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := slowMembership(&slow{body: `{"joined":false}`}, zerolog.Nop())
		began := time.Now()
		impatient, giveUp := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer giveUp()
		_, err := m.Joined(impatient, room, bo)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 500*time.Millisecond, time.Since(began))
	})
}

// TestTheImpatientFillNoLog: a homeserver that answers those who wait three seconds
// is not silent because others wait for two.
func TestTheImpatientFillNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		m := slowMembership(&slow{takes: 3 * time.Second, body: `{"joined":true}`}, zerolog.New(&log))
		for range 20 {
			_, err := m.Confirm(t.Context(), room, ana)
			require.NoError(t, err)
			soon, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err = m.Still(soon, room, bo)
			cancel()
			require.Error(t, err)
		}
		require.Empty(t, log.String())
	})
}

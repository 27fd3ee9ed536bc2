package homeserver_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// answersInTurn is a homeserver that decides each question when it is asked, and
// says so after a delay: the first time the one, then the other.
func answersInTurn(first, then bool, delay time.Duration) *fake {
	asked := 0
	return &fake{answer: func(r *http.Request) (int, string) {
		if !strings.HasSuffix(r.URL.Path, "/is_joined") {
			return http.StatusForbidden, `{}`
		}
		if asked++; asked == 1 {
			time.Sleep(delay)
			return http.StatusOK, fmt.Sprintf(`{"joined":%t}`, first)
		}
		return http.StatusOK, fmt.Sprintf(`{"joined":%t}`, then)
	}}
}

// TestAnOlderAnswerThatComesLater does not count, whether it is kept or not: what
// was asked after it is known already.
func TestAnOlderAnswerThatComesLater(t *testing.T) {
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := membership(answersInTurn(first, !first, time.Second))
			older := make(chan bool)
			go func() {
				joined, err := m.Joined(t.Context(), room, ana)
				require.NoError(t, err)
				older <- joined
			}()
			synctest.Wait()
			joined, err := m.Confirm(t.Context(), room, ana)
			require.NoError(t, err)
			require.Equal(t, !first, joined)
			require.Equal(t, !first, <-older)
			joined, err = m.Joined(t.Context(), room, ana)
			require.NoError(t, err)
			require.Equal(t, !first, joined, "the newest answer")
		})
	}
}

// TestStill: who was in the room a moment ago costs no question, and whose join
// is on its way is not waited for.
func TestStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := answersInTurn(true, false, 0)
		m, began := membership(f), time.Now()
		still := func(want bool, questions int) {
			t.Helper()
			joined, err := m.Still(t.Context(), room, bo)
			require.NoError(t, err)
			require.Equal(t, want, joined)
			require.Equal(t, questions, f.count())
		}
		still(true, 1)
		still(true, 1)
		time.Sleep(5 * time.Second)
		still(false, 2)
		still(false, 3)
		require.Equal(t, 5*time.Second, time.Since(began))
		_, err := membership(always(0, "down")).Still(t.Context(), room, bo)
		require.Error(t, err)
	})
}

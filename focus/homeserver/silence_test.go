package homeserver_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/homeserver"
)

// TestSilenceIsNoRefusal: a homeserver that says nothing to the second question has
// refused nothing, whatever it said to the first.
func TestSilenceIsNoRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := membership(&fake{answer: func(r *http.Request) (int, string) {
			if strings.HasSuffix(r.URL.Path, "/joined_members") {
				return 0, "connection reset by peer"
			}
			return 403, `{"errcode":"M_FORBIDDEN"}`
		}}).Joined(t.Context(), room, bo)
		require.ErrorContains(t, err, "connection reset by peer")
		require.ErrorContains(t, err, "403 M_FORBIDDEN", "which is why it was asked")
		_, refused := errors.AsType[*homeserver.Refusal](err)
		require.False(t, refused)
		require.Zero(t, time.Since(began), "nor is it waited for")
	})
}

// TestNotHere: that nobody of our server is in a room counts where the homeserver
// has the name that was asked for, and not where that is written wrongly or it does
// not say what it is called.
func TestNotHere(t *testing.T) {
	for whoami, counts := range map[string]bool{
		`200 {"user_id":"@_passerelle_focus:own.example"}`:      true,
		`200 {"user_id":"@_passerelle_focus:own.example:8448"}`: false,
		`200 {"user_id":"@_passerelle_focus:example"}`:          false,
		`200 {"user_id":"@_passerelle_focus:Own.example"}`:      false,
		`200 {"user_id":"own.example"}`:                         false,
		`200 {"user_id":"@x:"}`:                                 false,
		`200 {}`:                                                false,
		`401 {"errcode":"M_UNKNOWN_TOKEN"}`:                     false,
		`500 {}`:                                                false,
	} {
		f := homeserverOf(map[string]string{"/whoami": whoami})
		here, err := membership(f).Here(t.Context(), room)
		require.False(t, here)
		require.Equal(t, counts, err == nil, "%s: %v", whoami, err)
		require.Len(t, f.asked, 2)

		f = homeserverOf(map[string]string{"/is_joined": `200 {"joined":true}`, "/whoami": whoami})
		here, err = membership(f).Here(t.Context(), room)
		require.NoError(t, err)
		require.True(t, here)
		require.Len(t, f.asked, 1)
	}
}

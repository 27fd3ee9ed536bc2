package homeserver_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// replies answers each question by its last segment, after a second.
func replies(status map[string]int, body map[string]string) *fake {
	return &fake{answer: func(r *http.Request) (int, string) {
		time.Sleep(time.Second)
		question := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		return status[question], body[question]
	}}
}

// TestRefusalsCostTheSame: neither the questions nor the time tell a room that
// there is from one that there is not, or from what is no room.
func TestRefusalsCostTheSame(t *testing.T) {
	const no = `{"joined":false}`
	list := func(status int, body string) *fake {
		return replies(map[string]int{"is_joined": 404, "joined_members": status},
			map[string]string{"is_joined": `{"errcode":"M_UNRECOGNIZED"}`, "joined_members": body})
	}
	for name, c := range map[string]struct {
		room      id.RoomID
		fake      *fake
		questions []string // in this order, once or again and again
		hidden    bool
	}{
		"a room that there is, or not": {room, replies(map[string]int{"is_joined": 200}, map[string]string{"is_joined": no}), []string{"is_joined"}, false},
		"called malformed":             {"!r", replies(map[string]int{"is_joined": 400}, map[string]string{"is_joined": `{"errcode":"M_INVALID_PARAM"}`}), []string{"is_joined"}, false},
		"no room":                      {"r", replies(map[string]int{"is_joined": 200}, map[string]string{"is_joined": no}), []string{"is_joined"}, false},
		"a list":                       {room, list(200, `{"joined":{}}`), []string{"is_joined", "joined_members"}, false},
		"no list":                      {room, list(403, `{"errcode":"M_FORBIDDEN"}`), []string{"is_joined", "joined_members"}, true},
		"no list, no room":             {"r", list(404, `{"errcode":"M_NOT_FOUND"}`), []string{"is_joined", "joined_members"}, true},
	} {
		for _, user := range []id.UserID{ana, bo} {
			t.Run(name+", "+string(user), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					joined, err := membership(c.fake).Joined(t.Context(), c.room, user)
					took := time.Since(began)
					require.False(t, joined)
					if c.hidden {
						require.ErrorIs(t, err, matrixrtc.ErrRoomHidden)
					} else {
						require.NoError(t, err)
					}
					var rounds int
					for i, asked := range c.fake.asked {
						require.Contains(t, asked, "/"+c.questions[i%len(c.questions)]+"?")
						rounds = i/len(c.questions) + 1
					}
					require.Len(t, c.fake.asked, rounds*len(c.questions))
					if user == ana {
						require.Equal(t, 1, rounds)
						require.Equal(t, time.Duration(len(c.questions))*time.Second, took)
					} else {
						require.Greater(t, rounds, 1, "a join may be on its way")
					}
					c.fake.asked = nil
				})
			})
		}
	}
}

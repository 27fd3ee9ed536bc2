package homeserver_test

import (
	"errors"
	"fmt"
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
	"maunium.net/go/mautrix/id"

	"passerelle/focus/homeserver"
)

// fake answers in place of the network. What a real Synapse answers is tested
// with a real Synapse, in demo/town.
type fake struct {
	mu     sync.Mutex
	asked  []string // method, path and query
	answer func(r *http.Request) (status int, body string)
	open   bool // it also answers who shows no token
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery)
	f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer as-token" && !f.open {
		return nil, errors.New("no token")
	}
	status, body := f.answer(r)
	if status == 0 {
		return nil, errors.New(body)
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

// always is a homeserver that gives one answer to is_joined, and shows no
// members.
func always(status int, body string) *fake {
	return &fake{answer: func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/joined_members") {
			return http.StatusForbidden, `{"errcode":"M_FORBIDDEN"}`
		}
		return status, body
	}}
}

func membership(f *fake) *homeserver.Membership {
	return homeserver.NewMembership(
		homeserver.NewClient(homeserver.Options{URL: "http://hs.example/base/", Token: "as-token", Transport: f}),
		"own.example", zerolog.Nop())
}

const (
	room = id.RoomID("!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM") // of version 12: no server name
	ana  = id.UserID("@ana:own.example")
	bo   = id.UserID("@bo:friend.example")
)

// TestAnswers: a clear yes or no is one, and everything else is not known.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		joined bool
		known  bool
	}{
		"joined":             {200, `{"joined":true}`, true, true},
		"not joined":         {200, `{"joined":false,"more":1}`, false, true},
		"malformed ID":       {400, `{"errcode":"M_INVALID_PARAM","error":"!x"}`, false, true},
		"another mistake":    {400, `{"errcode":"M_UNKNOWN"}`, false, false},
		"scope missing":      {403, `{"errcode":"M_FORBIDDEN"}`, false, false},
		"wrong token":        {401, `{"errcode":"M_UNKNOWN_TOKEN"}`, false, false},
		"not offered":        {404, `{"errcode":"M_UNRECOGNIZED"}`, false, false},
		"limited":            {429, `{"errcode":"M_LIMIT_EXCEEDED"}`, false, false},
		"fails":              {500, `oops`, false, false},
		"down":               {0, "connection refused", false, false},
		"redirect":           {302, ``, false, false},
		"not JSON":           {200, `<html>`, false, false},
		"says nothing":       {200, `{}`, false, false},
		"of the wrong type":  {200, `{"joined":"yes"}`, false, false},
		"too large":          {200, `{"joined":true,"x":"` + strings.Repeat("x", 1<<20) + `"}`, false, false},
		"null":               {200, `null`, false, false},
		"true, and too much": {200, `{"joined":true}{}`, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			joined, err := membership(always(c.status, c.body)).Joined(t.Context(), room, ana)
			require.Equal(t, c.joined, joined)
			if c.known {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			for _, secret := range []string{"as-token", string(room), "ana"} {
				require.NotContains(t, err.Error(), secret, "errors are logged")
			}
		})
	}
}

func TestNamesAreEscaped(t *testing.T) {
	f := always(200, `{"joined":true}`)
	joined, err := membership(f).Joined(t.Context(), "!a/../b?c#d:x", "@ü&mxid=@eve:own.example")
	require.NoError(t, err)
	require.True(t, joined)
	require.Equal(t, []string{"GET /base/_matrix/client/unstable/io.element.msc4502/rooms/%21a%2F..%2Fb%3Fc%23d:x/is_joined?mxid=%40%C3%BC%26mxid%3D%40eve%3Aown.example"}, f.asked)
}

// TestWhatIsNoName is not joined. Of what is no room that is said after as many
// questions as of a room, and no answer to them makes it one.
func TestWhatIsNoName(t *testing.T) {
	for _, user := range []id.UserID{"ana", "", "!ana:own.example"} {
		f := always(200, `{"joined":true}`)
		joined, err := membership(f).Joined(t.Context(), room, user)
		require.NoError(t, err)
		require.False(t, joined)
		require.Empty(t, f.asked)
	}
	for _, name := range []id.RoomID{"#alias:own.example", "..", "r", room[1:]} {
		for status, answers := range map[int]string{200: `{"joined":true}`, 404: `{}`} {
			answer := func(r *http.Request) (int, string) {
				if strings.HasSuffix(r.URL.Path, "/joined_members") {
					return 200, `{"joined":{"@ana:own.example":{}}}`
				}
				return status, answers
			}
			f, other := &fake{answer: answer}, &fake{answer: answer}
			joined, err := membership(f).Joined(t.Context(), name, ana)
			require.NoError(t, err)
			require.False(t, joined)
			_, err = membership(other).Joined(t.Context(), room, ana)
			require.NoError(t, err)
			require.Len(t, f.asked, len(other.asked))
		}
		_, err := membership(always(0, "down")).Joined(t.Context(), name, ana)
		require.Error(t, err)
	}
}

// TestNewerParameter: the proposal renamed it.
func TestNewerParameter(t *testing.T) {
	f := &fake{answer: func(r *http.Request) (int, string) {
		if r.URL.Query().Get("user_id") != string(ana) {
			return 400, `{"errcode":"M_MISSING_PARAM"}`
		}
		return 200, `{"joined":true}`
	}}
	joined, err := membership(f).Joined(t.Context(), room, ana)
	require.NoError(t, err)
	require.True(t, joined)
}

// TestMembersInstead: a homeserver without MSC4502 may still list who is there.
func TestMembersInstead(t *testing.T) {
	for _, status := range []int{403, 404} {
		f := &fake{answer: func(r *http.Request) (int, string) {
			if strings.HasSuffix(r.URL.Path, "/joined_members") {
				return 200, `{"joined":{"@ana:own.example":{"display_name":"x"}}}`
			}
			return status, `{}`
		}}
		m := membership(f)
		joined, err := m.Joined(t.Context(), room, ana)
		require.NoError(t, err)
		require.True(t, joined)
		joined, err = m.Joined(t.Context(), room, "@eve:own.example")
		require.NoError(t, err)
		require.False(t, joined)
	}
}

// TestYesIsKeptForFiveSeconds, and no answer else is kept at all.
func TestYesIsKeptForFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var joined atomic.Bool
		f := &fake{answer: func(*http.Request) (int, string) { return 200, fmt.Sprintf(`{"joined":%t}`, joined.Load()) }}
		m := membership(f)
		ask := func(want bool, questions int) {
			t.Helper()
			got, err := m.Joined(t.Context(), room, ana)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, questions, f.count())
		}
		ask(false, 1)
		ask(false, 2)
		joined.Store(true)
		ask(true, 3)
		joined.Store(false)
		time.Sleep(4900 * time.Millisecond)
		ask(true, 3)
		time.Sleep(200 * time.Millisecond)
		ask(false, 4)

		joined.Store(true)
		ask(true, 5)
		joined.Store(false)
		confirmed, err := m.Confirm(t.Context(), room, ana)
		require.NoError(t, err)
		require.False(t, confirmed, "asked now")
		ask(false, 7) // and what was kept is forgotten
	})
}

// TestAJoinOnItsWay: another server's user asks before our server has seen the
// join. Our own users' joins cannot be on their way.
func TestAJoinOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := &fake{answer: func(*http.Request) (int, string) {
			return 200, fmt.Sprintf(`{"joined":%t}`, time.Since(began) > 1500*time.Millisecond)
		}}
		m := membership(f)
		joined, err := m.Joined(t.Context(), room, ana)
		require.NoError(t, err)
		require.False(t, joined)
		require.Zero(t, time.Since(began))
		joined, err = m.Joined(t.Context(), room, bo)
		require.NoError(t, err)
		require.True(t, joined)
		require.Less(t, time.Since(began), 3*time.Second)
		require.Less(t, f.count(), 12)

		// Who never joins is refused after three seconds.
		m, began = membership(always(200, `{"joined":false}`)), time.Now()
		joined, err = m.Joined(t.Context(), room, bo)
		require.NoError(t, err)
		require.False(t, joined)
		require.InDelta(t, 2.3, time.Since(began).Seconds(), 0.75)
	})
}

// TestWhatIsWithheld takes as long as a no: a homeserver without MSC4502 says no
// of the rooms that it lets us see, and keeps all others to itself. One that is
// broken is not waited for.
func TestWhatIsWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := func(status int, body string, user id.UserID) (time.Duration, error) {
			began := time.Now()
			_, err := membership(&fake{answer: func(r *http.Request) (int, string) {
				if strings.HasSuffix(r.URL.Path, "/joined_members") {
					return status, body
				}
				return 404, `{"errcode":"M_UNRECOGNIZED"}`
			}}).Joined(t.Context(), room, user)
			return time.Since(began), err
		}
		for _, no := range []struct {
			status   int
			body     string
			withheld bool
		}{{200, `{"joined":{}}`, false}, {403, `{"errcode":"M_FORBIDDEN"}`, true}, {404, `{"errcode":"M_NOT_FOUND"}`, true}} {
			elapsed, err := took(no.status, no.body, bo)
			require.InDelta(t, 2.3, elapsed.Seconds(), 0.75)
			refusal, ok := errors.AsType[*homeserver.Refusal](err)
			require.Equal(t, no.withheld, ok && refusal.Withheld())
			elapsed, _ = took(no.status, no.body, ana)
			require.Zero(t, elapsed)
		}
		for status, body := range map[int]string{500: `{"errcode":"M_FORBIDDEN_NOT"}`, 404: "no such page", 403: `{"errcode":"M_UNRECOGNIZED"}`} {
			elapsed, err := took(status, body, bo)
			require.Zero(t, elapsed)
			refusal, ok := errors.AsType[*homeserver.Refusal](err)
			require.True(t, ok && !refusal.Withheld())
		}
	})
}

// TestManyStrangers: only so many "no" are asked again at one time.
func TestManyStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := always(200, `{"joined":false}`)
		m := membership(f)
		var asking sync.WaitGroup
		for n := range 400 {
			asking.Go(func() {
				joined, err := m.Joined(t.Context(), room, id.UserID(fmt.Sprintf("@u%d:evil.example", n)))
				require.NoError(t, err)
				require.False(t, joined)
			})
		}
		asking.Wait()
		require.Less(t, f.count(), 400+16*8)
	})
}

// TestStrangersOfOneServer do not keep the users of another from being waited for.
func TestStrangersOfOneServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := membership(&fake{answer: func(r *http.Request) (int, string) {
			return 200, fmt.Sprintf(`{"joined":%t}`, r.URL.Query().Get("mxid") == string(bo) && time.Since(began) > time.Second)
		}})
		var asking sync.WaitGroup
		for n := range 400 {
			asking.Go(func() {
				server := []string{"evil.example", "EVIL.example"}[n%2]
				_, err := m.Joined(t.Context(), room, id.UserID(fmt.Sprintf("@u%d:%s", n, server)))
				require.NoError(t, err)
			})
		}
		synctest.Wait()
		joined, err := m.Joined(t.Context(), room, bo)
		asking.Wait()
		require.NoError(t, err)
		require.True(t, joined)
	})
}

// TestBusy: a homeserver that does not keep up is not asked more and more.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Int32
		f := &fake{answer: func(*http.Request) (int, string) {
			time.Sleep(time.Second)
			return 200, `{"joined":true}`
		}}
		m := membership(f)
		var asking sync.WaitGroup
		for n := range 1000 {
			asking.Go(func() {
				if _, err := m.Joined(t.Context(), room, id.UserID(fmt.Sprintf("@u%d:own.example", n))); err != nil {
					busy.Add(1)
				}
			})
		}
		asking.Wait()
		require.EqualValues(t, 1000-512, busy.Load())
		require.Equal(t, 512, f.count())
	})
}

// TestHere asks for our own server.
func TestHere(t *testing.T) {
	f := always(200, `{"joined":true}`)
	here, err := membership(f).Here(t.Context(), room)
	require.NoError(t, err)
	require.True(t, here)
	require.Contains(t, f.asked[0], "server_name=own.example")
}

// TestHereIsNoGuess: a homeserver that does not understand the question has
// not said that nobody is there.
func TestHereIsNoGuess(t *testing.T) {
	for _, code := range []string{"M_INVALID_PARAM", "M_MISSING_PARAM", "M_UNRECOGNIZED"} {
		_, err := membership(always(400, `{"errcode":"`+code+`"}`)).Here(t.Context(), room)
		require.Error(t, err, code)
	}
}

// TestPresent: that somebody of a server is there is kept as for users.
func TestPresent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var joined atomic.Bool
		f := &fake{answer: func(*http.Request) (int, string) { return 200, fmt.Sprintf(`{"joined":%t}`, joined.Load()) }}
		m := membership(f)
		ask := func(want bool, questions int) {
			t.Helper()
			got, err := m.Present(t.Context(), room, "friend.example")
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, questions, f.count())
		}
		ask(false, 1)
		joined.Store(true)
		ask(true, 2)
		require.Contains(t, f.asked[1], "server_name=friend.example")
		joined.Store(false)
		ask(true, 2)
		time.Sleep(5 * time.Second)
		ask(false, 3)
	})
	for _, failing := range []*fake{always(404, `{"errcode":"M_UNRECOGNIZED"}`), always(0, "connection refused"), always(400, `{"errcode":"M_INVALID_PARAM"}`)} {
		_, err := membership(failing).Present(t.Context(), room, "friend.example")
		require.Error(t, err)
	}
}

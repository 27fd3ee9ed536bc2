package focus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// silentPeer answers when it is let go, or never.
type silentPeer struct {
	mu    sync.Mutex
	under int
	all   int
	letGo chan struct{}
	once  sync.Once
}

func (p *silentPeer) answer() { p.once.Do(func() { close(p.letGo) }) }

func (p *silentPeer) Post(ctx context.Context, _, _ string, _ any) (int, json.RawMessage, error) {
	p.count(1)
	defer p.count(-1)
	select {
	case <-p.letGo:
		return http.StatusOK, json.RawMessage(`{"jwt":"theirs"}`), nil
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

func (p *silentPeer) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under += n
	p.all += max(n, 0)
}

func (p *silentPeer) underWay() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.under
}

// sent is how many requests have gone out.
func (p *silentPeer) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// relaying is a world whose users ask for the SFUs of others, in a bubble of
// [synctest]. The database is outside of it; nothing here touches that.
type relaying struct {
	*world
	peer    *silentPeer
	waiting sync.WaitGroup
}

func inBubble(t *testing.T, test func(t *testing.T, r *relaying), change ...func(*focus.Options)) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		synctest.Test(t, func(t *testing.T) {
			r := &relaying{peer: &silentPeer{letGo: make(chan struct{})}}
			r.world = newWorldWith(t, db, func(o *focus.Options) {
				o.Remote = r.peer
				for _, c := range change {
					c(o)
				}
			})
			for n := range 4 {
				r.access[fmt.Sprintf("peer%d.example", n)] = matrixrtc.Access{Join: true}
			}
			defer r.waiting.Wait() // also when the test fails
			defer r.peer.answer()
			test(t, r)
			r.waiting.Wait()
			require.Zero(t, r.peer.underWay())
		})
		require.Zero(t, count(t, db, "call_session"))
	})
}

// ask asks as one of our users, and waits for the answer.
func (r *relaying) ask(ctx context.Context, user, room, server string) *httptest.ResponseRecorder {
	body := strings.NewReplacer("{", fmt.Sprintf(`{"server_name":%q,`, server), "!roomid:example.com", room).Replace(vouchedRequest)
	recorder := httptest.NewRecorder()
	r.ServeVouched(recorder, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body)),
		matrixrtc.Caller{User: id.UserID("@" + user + ":own.example")})
	return recorder
}

// begin asks, and returns when the request has gone out.
func (r *relaying) begin(t *testing.T, user, room, server string) {
	t.Helper()
	before := r.peer.underWay()
	r.waiting.Go(func() {
		if answer := r.ask(t.Context(), user, room, server); answer.Code != http.StatusOK {
			t.Errorf("%s %s %s: %s", user, room, server, answer.Body)
		}
	})
	synctest.Wait()
	require.Equal(t, before+1, r.peer.underWay(), "%s %s %s", user, room, server)
}

func (r *relaying) refused(t *testing.T, user, room, server string) {
	t.Helper()
	before := r.peer.underWay()
	answer := r.ask(t.Context(), user, room, server)
	require.Equal(t, http.StatusTooManyRequests, answer.Code, answer.Body)
	require.Contains(t, answer.Body.String(), `"errcode":"M_LIMIT_EXCEEDED"`)
	require.Contains(t, answer.Body.String(), `"retry_after_ms":1000`)
	require.Equal(t, before, r.peer.underWay(), "nothing went out")
}

// TestRelayOnceAtATime: a user asks a server for a room once at a time.
func TestRelayOnceAtATime(t *testing.T) {
	inBubble(t, func(t *testing.T, r *relaying) {
		r.begin(t, "ana", "!a", "peer0.example")
		r.refused(t, "ana", "!a", "peer0.example")
		r.access["PEER0.example"] = matrixrtc.Access{Join: true}
		r.refused(t, "ana", "!a", "PEER0.example")
		r.begin(t, "ana", "!b", "peer0.example")
		r.begin(t, "ana", "!a", "peer1.example")
		r.begin(t, "bo", "!a", "peer0.example")
		r.peer.answer()
		r.waiting.Wait()
		require.Equal(t, http.StatusOK, r.ask(t.Context(), "ana", "!a", "peer0.example").Code, "it may come back")
	})
}

// TestRelaysAreBounded: a server that is silent keeps eight places, and all
// together 24; who finds none is told at once.
func TestRelaysAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *relaying) {
		for server := range 3 {
			name := fmt.Sprintf("peer%d.example", server)
			for n := range 8 {
				r.begin(t, fmt.Sprint("u", n), "!a", name)
			}
			r.refused(t, "eve", "!a", name)
		}
		require.Equal(t, 24, r.peer.underWay())
		r.refused(t, "eve", "!a", "peer3.example")
		r.peer.answer()
		r.waiting.Wait()
		for server := range 4 {
			require.Equal(t, http.StatusOK, r.ask(t.Context(), "eve", "!a", fmt.Sprintf("peer%d.example", server)).Code)
		}
	})
}

// TestOneUserHasNotAllRelays: who asks again and again about one room, for a server
// of which nobody is there, has one place while that is waited for, whether by the
// server's name or by any address of it.
func TestOneUserHasNotAllRelays(t *testing.T) {
	const address = "wss://sfu.peer0.example"
	inBubble(t, func(t *testing.T, r *relaying) {
		r.peer.answer()
		r.members.in = map[string]bool{}
		r.members.joins("@ana:own.example", "@bo:own.example", "peer1.example")
		var answers sync.Map
		for n := range 24 { // of the 50 that focus.limits.user lets one user ask at once
			r.waiting.Go(func() {
				body := strings.Replace(vouchedRequest, "wss://rtc.own.example/prefix", address, 1)
				if n%2 == 0 {
					body = strings.Replace(vouchedRequest, "{", `{"server_name":"peer0.example",`, 1)
				}
				recorder := httptest.NewRecorder()
				r.ServeVouched(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body)),
					matrixrtc.Caller{User: "@ana:own.example"})
				answers.Store(n, recorder.Code)
			})
		}
		synctest.Wait()
		require.Equal(t, http.StatusOK, r.ask(t.Context(), "bo", "!roomid:example.com", "peer1.example").Code)
		r.waiting.Wait()
		codes := map[int]int{}
		for _, code := range answers.Range {
			codes[code.(int)]++
		}
		require.Equal(t, map[int]int{http.StatusForbidden: 1, http.StatusTooManyRequests: 23}, codes)
	}, required, func(o *focus.Options) { o.Owners = owners{address: {"peer0.example"}} })
}

// TestRelayEnds: after ten seconds, or when the client has gone, and leaves its
// place to the next.
func TestRelayEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *relaying) {
		began := time.Now()
		answer := r.ask(t.Context(), "ana", "!a", "peer0.example")
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, http.StatusBadGateway, answer.Code)
		require.JSONEq(t, `{"errcode":"M_UNKNOWN","error":"the other server gave no token"}`, answer.Body.String())

		began = time.Now()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, http.StatusBadGateway, r.ask(impatient, "ana", "!a", "peer0.example").Code)
		require.Equal(t, time.Second, time.Since(began))

		r.peer.answer()
		require.Equal(t, http.StatusOK, r.ask(t.Context(), "ana", "!a", "peer0.example").Code)
	})
}

// TestRelayLimits: what a relay costs counts as any token request of the user.
func TestRelayLimits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *relaying) {
		r.peer.answer()
		for _, who := range []string{"server own.example", "user @ana:own.example"} {
			r.wait = map[string]time.Duration{who: time.Second}
			r.refused(t, "ana", "!a", "peer0.example")
		}
		r.wait = nil
		require.Equal(t, http.StatusOK, r.ask(t.Context(), "ana", "!a", "peer0.example").Code)
		r.access["own.example"] = matrixrtc.Access{}
		require.Equal(t, http.StatusForbidden, r.ask(t.Context(), "ana", "!a", "peer0.example").Code)
	})
}

package focus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
)

// joins puts users, whole servers or both into the room.
func (m *members) joins(who ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range who {
		m.in["!roomid:example.com "+w] = true
	}
}

// TestRelayToWhoIsThere: no server is told of a room in which nobody of it is, also
// where a client names it. One whose first user is joining just now is waited for.
func TestRelayToWhoIsThere(t *testing.T) {
	const address = "wss://sfu.peer0.example"
	for name, body := range map[string]string{
		"named":          strings.Replace(vouchedRequest, "{", `{"server_name":"peer0.example",`, 1),
		"by its address": strings.Replace(vouchedRequest, "wss://rtc.own.example/prefix", address, 1),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *relaying) {
				r.peer.answer()
				r.members.in = map[string]bool{}
				r.members.joins("@ana:own.example")
				ask := func(status int, text string, took time.Duration) {
					t.Helper()
					began, sent := time.Now(), r.peer.sent()
					recorder := httptest.NewRecorder()
					r.ServeVouched(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body)),
						matrixrtc.Caller{User: "@ana:own.example"})
					require.Equal(t, status, recorder.Code, recorder.Body)
					require.Contains(t, recorder.Body.String(), text)
					require.Equal(t, took, time.Since(began))
					require.Equal(t, status == http.StatusOK, r.peer.sent() > sent, "told of the room")
				}
				ask(http.StatusForbidden, "nobody of the server", 600*time.Millisecond)
				r.members.silent = errors.New("SECRET")
				ask(http.StatusBadGateway, "the homeserver does not answer", 0)
				r.members.silent = nil
				time.AfterFunc(100*time.Millisecond, func() { r.members.joins("peer0.example") })
				ask(http.StatusOK, "theirs", 200*time.Millisecond)
				ask(http.StatusOK, "theirs", 0)
			}, required, func(o *focus.Options) { o.Owners = owners{address: {"peer0.example"}} })
		})
	}
}

// halfSlow hangs for one server and answers for all others.
type halfSlow struct {
	slow string
	end  chan struct{}

	mu sync.Mutex
	to map[string]int
}

func (p *halfSlow) Post(ctx context.Context, server, _ string, _ any) (int, json.RawMessage, error) {
	p.mu.Lock()
	p.to[server]++
	p.mu.Unlock()
	if server == p.slow {
		select {
		case <-p.end:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
	return http.StatusOK, json.RawMessage(`{"jwt":"theirs"}`), nil
}

// TestRelaysCountForWhoIsAsked: of two servers at one address the second is slow.
// It gets no more requests than it may, and the first has all of its places.
func TestRelaysCountForWhoIsAsked(t *testing.T) {
	const theirs, ours, address = "!theirs", "!ours", "wss://shared.example"
	p := &halfSlow{slow: "peer1.example"}
	inBubble(t, func(t *testing.T, r *relaying) {
		p.to, p.end = map[string]int{}, make(chan struct{})
		r.members.in = map[string]bool{theirs + " peer1.example": true, ours + " peer0.example": true}
		ask := func(user, room, server string) int {
			r.members.mu.Lock()
			r.members.in[room+" @"+user+":own.example"] = true
			r.members.mu.Unlock()
			body := strings.NewReplacer("wss://rtc.own.example/prefix", address, "!roomid:example.com", room,
				"{", fmt.Sprintf(`{"server_name":%q,`, server)).Replace(vouchedRequest)
			recorder := httptest.NewRecorder()
			r.ServeVouched(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body)),
				matrixrtc.Caller{User: id.UserID("@" + user + ":own.example")})
			return recorder.Code
		}
		for n := range 8 {
			r.waiting.Go(func() { ask(fmt.Sprint("a", n), theirs, "") })
			r.waiting.Go(func() { ask(fmt.Sprint("b", n), theirs, "peer1.example") })
		}
		synctest.Wait()
		p.mu.Lock()
		require.Equal(t, map[string]int{"peer1.example": 8}, p.to)
		p.mu.Unlock()
		require.Equal(t, http.StatusOK, ask("ana", ours, "peer0.example"))
		require.Equal(t, http.StatusOK, ask("ana", ours, ""))
		close(p.end)
	}, required, func(o *focus.Options) {
		o.Remote, o.Owners = p, owners{address: {"peer0.example", "peer1.example"}}
	})
}

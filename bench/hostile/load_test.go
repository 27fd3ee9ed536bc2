package hostile

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// request is one token request.
type request struct {
	from, body string
}

// tally is what requests were told, and how long that took: from when each was
// due, so that one that has to wait for its turn counts too.
type tally struct {
	mu       sync.Mutex
	took     []time.Duration
	statuses map[int]int
}

func newTally() *tally { return &tally{statuses: map[int]int{}} }

func (t *tally) add(status int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.statuses[status]++
	t.took = append(t.took, took)
}

// p99 is in milliseconds.
func (t *tally) p99() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.took) == 0 {
		return 0
	}
	slices.Sort(t.took)
	return t.took[len(t.took)*99/100].Seconds() * 1000
}

// mostly is the status that was given most; 0 is a broken connection.
func (t *tally) mostly() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	most := 0
	for status, n := range t.statuses {
		if n > t.statuses[most] || t.statuses[most] == 0 {
			most = status
		}
	}
	return most
}

// post asks for a token and returns the status.
func (w *world) post(ctx context.Context, p process, r request) int {
	asked, err := http.NewRequestWithContext(ctx, http.MethodPost, p.address+"/sfu/get", strings.NewReader(r.body))
	if err != nil {
		return 0
	}
	asked.Header.Set("X-Forwarded-For", r.from)
	answer, err := w.client.Do(asked)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

// steady asks so many times a second, whatever becomes of the requests before,
// until ctx is done, and returns when the last has been answered.
func (w *world) steady(ctx context.Context, p process, perSecond int, into *tally, next func(n int) request) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	for n := 0; ; n++ {
		var due time.Time
		select {
		case <-ctx.Done():
			return
		case due = <-tick.C:
		}
		asking.Go(func() {
			status := w.post(context.WithoutCancel(ctx), p, next(n))
			into.add(status, time.Since(due))
		})
	}
}

// healthyRate is how many tokens the users of the healthy homeserver ask for
// in a second.
const healthyRate = 100

// measure asks both as the users of the healthy homeserver do. All of them get
// their tokens, attack or not.
func (w *world) measure(b *testing.B, length time.Duration, attacked, peaceful *tally) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), length)
	defer cancel()
	var asking sync.WaitGroup
	for _, side := range []struct {
		p    process
		into *tally
	}{{w.attacked, attacked}, {w.peaceful, peaceful}} {
		asking.Go(func() {
			w.steady(ctx, side.p, healthyRate, side.into, func(n int) request {
				return request{
					from: fmt.Sprintf("192.0.2.%d", n%250),
					body: body(fmt.Sprintf("!r%d:healthy", n%1000), w.healthy.Issue(fmt.Sprintf("u%d", n%5000)), w.healthy.Name()),
				}
			})
		})
	}
	asking.Wait()
	for _, t := range []*tally{attacked, peaceful} {
		if t.statuses[http.StatusOK] != len(t.took) {
			b.Fatalf("healthy users were told %v", t.statuses)
		}
	}
}

func body(room, token, server string) string {
	return fmt.Sprintf(`{"room":%q,"device_id":"DEV","openid_token":{"access_token":%q,"token_type":"Bearer","matrix_server_name":%q,"expires_in":3600}}`,
		room, token, server)
}

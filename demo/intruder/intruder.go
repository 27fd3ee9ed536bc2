// Package intruder tries every way into an SFU with tokens that may not be good
// any more, and says which of them let it in.
package intruder

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
)

// tryTimeout bounds one try.
const tryTimeout = 10 * time.Second

// Way is one way to try to get in with a token.
type Way struct {
	Name string
	// Always: nobody gets in this way, whatever the token.
	Always  bool
	request func(base, token string) *http.Request
}

// Ways are all that there are: LiveKit's routes for clients, those for a
// server's own tools, and tokens that are shown twice.
func Ways() []Way {
	v1 := "join_request=" + joinRequest()
	const q = "access_token=TOKEN"
	return []Way{
		{"rtc, query", false, get("/rtc", q+"&protocol=15&auto_subscribe=1", true, nil)},
		{"rtc, header", false, get("/rtc", "protocol=15", true, bearer)},
		{"rtc, resumed", false, get("/rtc", q+"&protocol=15&reconnect=1&sid=PA_x", true, nil)},
		{"rtc/v1, query", false, get("/rtc/v1", q+"&"+v1, true, nil)},
		{"rtc/v1, header", false, get("/rtc/v1", v1, true, bearer)},
		{"validate", false, get("/rtc/validate", q, false, nil)},
		{"v1/validate", false, get("/rtc/v1/validate", q+"&"+v1, false, nil)},
		{"under a prefix", false, get("/livekit/sfu/rtc", q+"&protocol=15", true, nil)},
		{"header and query", true, get("/rtc", q, true, bearer)},
		{"two in the query", true, get("/rtc", q+"&"+q, true, nil)},
		{"two in the query, v1", true, get("/rtc/v1", q+"&"+v1+"&"+q, true, nil)},
		{"two headers", true, get("/rtc", "", true, func(t string) []string { return []string{"Bearer " + t, "Bearer " + t} })},
		{"semicolon", true, get("/rtc", q+";"+q, true, nil)},
		{"whip", true, post("/whip")},
		{"whip/v1", true, post("/whip/v1")},
		{"agent", true, get("/agent", q, true, bearer)},
		{"twirp", true, post("/twirp/livekit.RoomService/ListRooms")},
		{"twirp in a path", true, post("/rtc/../twirp/livekit.RoomService/ListRooms")},
	}
}

// joinRequest is what newer clients put into the address.
func joinRequest() string {
	join, err := proto.Marshal(&livekit.JoinRequest{ConnectionSettings: &livekit.ConnectionSettings{AutoSubscribe: true}})
	if err != nil {
		panic(err) // a constant
	}
	wrapped, err := proto.Marshal(&livekit.WrappedJoinRequest{JoinRequest: join})
	if err != nil {
		panic(err) // likewise
	}
	return base64.URLEncoding.EncodeToString(wrapped)
}

func bearer(token string) []string { return []string{"Bearer " + token} }

// get asks as a browser does, in whose query TOKEN stands for the token.
func get(path, query string, upgrade bool, header func(token string) []string) func(string, string) *http.Request {
	return func(base, token string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, base+path+"?"+strings.ReplaceAll(query, "TOKEN", url.QueryEscape(token)), nil)
		if err != nil {
			panic(err) // the base is ours
		}
		if header != nil {
			r.Header["Authorization"] = header(token)
		}
		if upgrade {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Sec-WebSocket-Version", "13")
			r.Header.Set("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")
		}
		return r
	}
}

// post asks as a server's own tools do.
func post(path string) func(string, string) *http.Request {
	return func(base, token string) *http.Request {
		r, err := http.NewRequest(http.MethodPost, base+path, strings.NewReader("{}"))
		if err != nil {
			panic(err) // the base is ours
		}
		r.Header["Authorization"] = bearer(token)
		r.Header.Set("Content-Type", "application/json")
		return r
	}
}

// Try returns the status with which an attempt at the server at base, an
// http:// address, was answered, 0 when nobody answered.
func (w Way) Try(client *http.Client, base, token string) (status int) {
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	answer, err := client.Do(w.request(base, token).WithContext(ctx))
	if err != nil {
		return 0
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// Admitted tells whether a status lets in.
func Admitted(status int) bool { return status == http.StatusSwitchingProtocols || status/100 == 2 }

// Siege tries every way with many tokens and counts. It is safe for concurrent
// use.
type Siege struct {
	mu                sync.Mutex
	tries, unanswered int
	inside            map[string]int
}

// Try tries every way with each token, by what the tokens are called.
func (s *Siege) Try(client *http.Client, base string, tokens map[string]string) {
	for _, way := range Ways() {
		for name, token := range tokens {
			s.note(way.Name+" with "+name, way.Try(client, base, token))
		}
	}
}

func (s *Siege) note(how string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	switch {
	case status == 0:
		s.unanswered++
	case Admitted(status):
		if s.inside == nil {
			s.inside = map[string]int{}
		}
		s.inside[how]++
	}
}

// Inside is how often which way let in, with which token; empty when none did.
func (s *Siege) Inside() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	inside := map[string]int{}
	for how, n := range s.inside {
		inside[how] = n
	}
	return inside
}

// Unanswered is how many tries nobody answered.
func (s *Siege) Unanswered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unanswered
}

func (s *Siege) String() string {
	inside := 0
	for _, n := range s.Inside() {
		inside += n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d tries, %d admissions, %d without an answer", s.tries, inside, s.unanswered)
}

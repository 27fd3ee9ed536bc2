package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// attempt is one way to try to get in with a token.
type attempt struct {
	name string
	// always: nobody gets in this way, whatever the token.
	always  bool
	request func(base, token string) *http.Request
}

func attempts(t *testing.T) []attempt {
	t.Helper()
	join, err := proto.Marshal(&livekit.JoinRequest{ConnectionSettings: &livekit.ConnectionSettings{AutoSubscribe: true}})
	require.NoError(t, err)
	wrapped, err := proto.Marshal(&livekit.WrappedJoinRequest{JoinRequest: join})
	require.NoError(t, err)
	v1 := "join_request=" + base64.URLEncoding.EncodeToString(wrapped)
	const q = "access_token=TOKEN"
	return []attempt{
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

func bearer(token string) []string { return []string{"Bearer " + token} }

// get asks as a browser does, in whose query TOKEN stands for the token.
func get(path, query string, upgrade bool, header func(token string) []string) func(string, string) *http.Request {
	return func(base, token string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, base+path+"?"+strings.ReplaceAll(query, "TOKEN", url.QueryEscape(token)), nil)
		if err != nil {
			panic(err)
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
			panic(err)
		}
		r.Header["Authorization"] = bearer(token)
		r.Header.Set("Content-Type", "application/json")
		return r
	}
}

// outcome is what became of an attempt: its status, 0 when nobody answered.
func (a attempt) outcome(client *http.Client, base, token string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := client.Do(a.request(base, token).WithContext(ctx))
	if err != nil {
		return 0
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

func admitted(status int) bool { return status == http.StatusSwitchingProtocols || status/100 == 2 }

// raw is a participant that speaks the signalling protocol and no media, and
// keeps the token that LiveKit makes for it.
type raw struct {
	conn      *websocket.Conn
	refreshed string
	ended     chan time.Time
}

func connectRaw(t *testing.T, base, token string) *raw {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), base+"/rtc?protocol=15&auto_subscribe=1&access_token="+token, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(1 << 20)
	r := &raw{conn: c, ended: make(chan time.Time, 1)}
	for joined := false; !joined || r.refreshed == ""; {
		_, message, err := c.Read(t.Context())
		require.NoError(t, err)
		var response livekit.SignalResponse
		require.NoError(t, proto.Unmarshal(message, &response))
		joined = joined || response.GetJoin() != nil
		if token := response.GetRefreshToken(); token != "" {
			r.refreshed = token
		}
	}
	go func() {
		for {
			if _, _, err := c.Read(context.Background()); err != nil {
				r.ended <- time.Now()
				return
			}
		}
	}()
	return r
}

// revoke is what an operator does.
func (i *instance) revoke(user string) {
	i.t.Helper()
	body := fmt.Sprintf(`{"user_id": %q, "room_id": "!r:hs", "reason": "test"}`, i.home.User(user))
	answer, err := http.Post("http://"+i.private+"/admin/revoke", "application/json", strings.NewReader(body))
	require.NoError(i.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(i.t, err)
	require.Equal(i.t, http.StatusOK, answer.StatusCode, "%s", text)
	require.JSONEq(i.t, `{"revoked": 1}`, string(text))
}

// like signs what LiveKit would make of the refreshed token now.
func like(t *testing.T, i *instance, refreshed string, keepTerm bool) string {
	t.Helper()
	id, secret := i.key()
	parsed, err := auth.ParseAPIToken(refreshed)
	require.NoError(t, err)
	_, grants, err := parsed.Verify(secret)
	require.NoError(t, err)
	if !keepTerm {
		grants.Video.DestinationRoom = ""
	}
	token, err := auth.NewAccessToken(id, secret).SetIdentity(grants.Identity).SetVideoGrant(grants.Video).
		SetValidFor(24 * time.Hour).ToJWT()
	require.NoError(t, err)
	return token
}

// siege tries every way with every token until the time is over, while
// Passerelle and the SFU are killed in turns, and counts.
type siege struct {
	tries, inside, unanswered atomic.Int64
	mu                        sync.Mutex
	how                       map[string]int // who got in, and how
}

func (s *siege) try(client *http.Client, base string, ways []attempt, tokens map[string]string) {
	for _, way := range ways {
		for name, token := range tokens {
			status := way.outcome(client, base, token)
			s.tries.Add(1)
			switch {
			case status == 0:
				s.unanswered.Add(1)
			case admitted(status):
				s.inside.Add(1)
				s.mu.Lock()
				s.how[way.name+" with "+name]++
				s.mu.Unlock()
			}
		}
	}
}

// TestWhoWasRemovedStaysOut is the door's promise, kept against the real SFU:
// whoever was removed from a call does not come back with anything that they
// have, however they try; and comes back at once when they may again.
//
// It tries for some seconds. PASSERELLE_SOAK=10m makes that ten minutes.
func TestWhoWasRemovedStaysOut(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	duration := siegeTime(t)
	i := newInstance(t)
	i.start()
	base := "http://" + i.public
	ways, client := attempts(t), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	bo, ana := join(t, i, "bo"), join(t, i, "ana")
	bo.hear(t, time.Now())
	_, original := i.token("eve")
	for _, way := range ways {
		require.Equal(t, !way.always, admitted(way.outcome(client, base, original)), "before: %s", way.name)
	}
	direct := fmt.Sprintf("http://127.0.0.1:%d", i.sfuPort)
	for _, way := range ways {
		require.False(t, admitted(way.outcome(client, direct, original)), "at the SFU itself: %s", way.name)
	}
	eve := connectRaw(t, base, original)
	require.True(t, admitted(ways[0].outcome(client, base, eve.refreshed)), "what LiveKit made admits")
	eve = connectRaw(t, base, eve.refreshed)

	revoked := time.Now()
	i.revoke("eve")
	t.Logf("revoked in %s", time.Since(revoked).Round(100*time.Microsecond))
	t.Logf("cut %s after the revocation began", (<-eve.ended).Sub(revoked).Round(100*time.Microsecond))
	i.revoke("ana")
	select {
	case reason := <-ana.goodbye:
		require.Equal(t, livekit.DisconnectReason_PARTICIPANT_REMOVED, reason)
	case <-time.After(patience):
		t.Fatal("ana is still in the call")
	}

	s := &siege{how: map[string]int{}}
	tokens := map[string]string{
		"the original": original, "LiveKit's": eve.refreshed,
		"one like LiveKit's": like(t, i, eve.refreshed, true), "one without a term": like(t, i, eve.refreshed, false),
	}
	restarts := s.hold(t, i, client, base, ways, tokens, duration)
	require.Empty(t, s.how)
	require.Zero(t, s.inside.Load())
	t.Logf("%d tries in %s, %d admissions; %d fell into one of %d restarts",
		s.tries.Load(), duration, s.inside.Load(), s.unanswered.Load(), restarts)
	require.Equal(t, []string{string(identityOf(t, i, bo))}, present(t, i), "at the SFU there is bo and nobody else")

	// Given again: in at once, and what is older stays worthless.
	asked := time.Now()
	_, fresh := i.token("eve")
	again := connectRaw(t, base, fresh)
	t.Logf("granted again and inside after %s", time.Since(asked).Round(time.Millisecond))
	delete(tokens, "one without a term") // LiveKit's key made it after the revocation
	s.try(client, base, ways, tokens)
	require.Empty(t, s.how)
	require.True(t, admitted(ways[0].outcome(client, base, again.refreshed)), "and so does what LiveKit makes of it")
}

// siegeTime is some seconds, or PASSERELLE_SOAK.
func siegeTime(t *testing.T) time.Duration {
	t.Helper()
	soak := os.Getenv("PASSERELLE_SOAK")
	if soak == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(soak)
	require.NoError(t, err)
	return d
}

// hold besieges the instance for a time, and returns how often something was
// killed meanwhile.
func (s *siege) hold(t *testing.T, i *instance, client *http.Client, base string, ways []attempt, tokens map[string]string, d time.Duration) int {
	t.Helper()
	over := time.Now().Add(d)
	var trying sync.WaitGroup
	for range 2 {
		trying.Go(func() {
			for time.Now().Before(over) {
				s.try(client, base, ways, tokens)
				time.Sleep(d / 600) // leaves the machine to others
			}
		})
	}
	kills := 0
	for pause := max(d/20, time.Second); time.Now().Add(pause).Before(over); kills++ {
		time.Sleep(pause)
		if kills%2 == 0 {
			i.kill()
			i.start()
		} else {
			require.NoError(t, syscall.Kill(i.sfu(), syscall.SIGKILL))
		}
	}
	trying.Wait()
	require.Greater(t, kills, 1)
	return kills
}

func identityOf(t *testing.T, i *instance, p *participant) string {
	t.Helper()
	require.Eventually(t, func() bool { return len(present(t, i)) == 1 }, 20*time.Second, 100*time.Millisecond, "%s is not back", p.name)
	return p.room.LocalParticipant.Identity()
}

// present asks the SFU itself who is in the call.
func present(t *testing.T, i *instance) []string {
	t.Helper()
	id, secret := i.key()
	ask := func(method, body string, grant *auth.VideoGrant) []byte {
		token, err := auth.NewAccessToken(id, secret).SetVideoGrant(grant).SetValidFor(time.Minute).ToJWT()
		require.NoError(t, err)
		r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/twirp/livekit.RoomService/%s", i.sfuPort, method), strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return text
	}
	var rooms struct{ Rooms []struct{ Name string } }
	_ = json.Unmarshal(ask("ListRooms", "{}", &auth.VideoGrant{RoomList: true}), &rooms)
	var names []string
	for _, room := range rooms.Rooms {
		var answer struct{ Participants []struct{ Identity string } }
		_ = json.Unmarshal(ask("ListParticipants", fmt.Sprintf(`{"room": %q}`, room.Name),
			&auth.VideoGrant{RoomAdmin: true, Room: room.Name}), &answer)
		for _, p := range answer.Participants {
			names = append(names, p.Identity)
		}
	}
	return names
}

// TestDirectSignallingRemovesAgain is what is left of that promise where
// clients reach the SFU without the door: they come in, and are put out.
func TestDirectSignallingRemovesAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	i := newInstanceWith(t, func(i *instance, port, udp int) string {
		return fmt.Sprintf(`{signalling: direct, public_url: "ws://127.0.0.1:%d", embedded: {port: %[1]d, udp_port: %d, tcp_port: 0,
			node_ip: 127.0.0.1, loopback: true, orphan_timeout: 20s}}`, port, udp)
	})
	i.start()
	address, jwt := i.token("ana")
	require.Equal(t, fmt.Sprintf("ws://127.0.0.1:%d", i.sfuPort), address)
	enter := func() (chan lksdk.DisconnectionReason, error) {
		goodbye := make(chan lksdk.DisconnectionReason, 1)
		// Being put out may come before the SDK has given us the room.
		room, err := lksdk.ConnectToRoomWithToken(address, jwt, &lksdk.RoomCallback{
			OnDisconnectedWithReason: func(reason lksdk.DisconnectionReason) { goodbye <- reason },
		})
		if err == nil {
			t.Cleanup(room.Disconnect)
		}
		return goodbye, err
	}
	removed := func(goodbye chan lksdk.DisconnectionReason) {
		select {
		case reason := <-goodbye:
			require.Equal(t, lksdk.ParticipantRemoved, reason)
		case <-time.After(patience):
			t.Fatal("still in the call")
		}
	}
	first, err := enter()
	require.NoError(t, err)
	i.revoke("ana")
	removed(first)
	began := time.Now()
	second, _ := enter() // fails if she is put out before she is in
	removed(second)
	t.Logf("in with the old token and out again within %s", time.Since(began).Round(time.Millisecond))

	_, jwt = i.token("ana")
	again, err := enter()
	require.NoError(t, err)
	require.Never(t, func() bool { return len(again) > 0 }, time.Second, 20*time.Millisecond, "she may be here")
}

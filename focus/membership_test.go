package focus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// members are who is in which room, until the homeserver falls silent.
type members struct {
	mu     sync.Mutex
	in     map[string]bool
	silent error
	away   bool // our own server is in no room
	asked  int
}

func (m *members) Joined(_ context.Context, room id.RoomID, user id.UserID) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.in[string(room)+" "+string(user)], m.silent
}

func (m *members) Still(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	return m.Joined(ctx, room, user)
}

func (m *members) Confirm(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	return m.Joined(ctx, room, user)
}

func (m *members) Present(_ context.Context, room id.RoomID, server string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	return m.in[string(room)+" "+server], m.silent
}

func (m *members) Here(context.Context, id.RoomID) (bool, error) { return !m.away, m.silent }

// way is one way to a token.
type way struct {
	name    string
	request string
	serve   func(*world, http.ResponseWriter, *http.Request)
	user    id.UserID
	ours    bool
}

const (
	vouchedRequest = `{"url":"wss://rtc.own.example/prefix","room_id":"!roomid:example.com","slot_id":"m.call#ROOM","member_id":"m"}`
	olderRequest   = `{"url":"wss://rtc.own.example/prefix","room_id":"!roomid:example.com","slot_id":"m.call#ROOM",
		"member":{"id":"m","claimed_user_id":"@ana:own.example","claimed_device_id":"DEV"}}`
	federatedRequest = `{"user_id":"@bo:friend.example","url":"wss://rtc.own.example/prefix","room_id":"!roomid:example.com","slot_id":"m.call#ROOM","member_id":"m"}`
)

// ways are all routes by which tokens are given.
func ways() []way {
	public := func(path string) func(*world, http.ResponseWriter, *http.Request) {
		return func(w *world, answer http.ResponseWriter, r *http.Request) { w.Serve(answer, r, path) }
	}
	vouched := func(caller matrixrtc.Caller) func(*world, http.ResponseWriter, *http.Request) {
		return func(w *world, answer http.ResponseWriter, r *http.Request) { w.ServeVouched(answer, r, caller) }
	}
	return []way{
		{"legacy", legacyRequest, public("/sfu/get"), "@ana:own.example", true},
		{"standalone", standaloneRequest, public("/get_token"), "@ana:own.example", true},
		{"proxied", vouchedRequest, vouched(matrixrtc.Caller{User: "@ana:own.example"}), "@ana:own.example", true},
		{"proxied, older body", olderRequest, vouched(matrixrtc.Caller{User: "@ana:own.example"}), "@ana:own.example", true},
		{"federated", federatedRequest, vouched(matrixrtc.Caller{Origin: "friend.example"}), "@bo:friend.example", false},
	}
}

func (v way) ask(t *testing.T, w *world, request string) (int, string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	v.serve(w, recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(request)))
	require.Equal(t, "application/json", recorder.Header().Get("Content-Type"))
	return recorder.Code, recorder.Body.String()
}

// TestOnlyMembers: whatever the route, a token is for who is in the room.
func TestOnlyMembers(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for _, v := range ways() {
			t.Run(v.name, func(t *testing.T) {
				empty(t, db)
				w := newWorldWith(t, db, required)
				status, refusal := v.ask(t, w, v.request)
				require.Equal(t, http.StatusForbidden, status)
				require.JSONEq(t, `{"errcode":"M_FORBIDDEN","error":"only members of the room may join its calls"}`, refusal)
				status, elsewhere := v.ask(t, w, strings.NewReplacer(
					"!roomid:example.com", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", `"tok"`, `"another"`).Replace(v.request))
				require.Equal(t, http.StatusForbidden, status)
				require.Equal(t, refusal, elsewhere, "a room that is not known is refused with the same words")
				require.Equal(t, 2, w.members.asked)
				require.Empty(t, w.ensured)
				require.Empty(t, w.signed)
				require.Zero(t, count(t, db, "call_session"))

				w.members.in = map[string]bool{"!roomid:example.com " + string(v.user): true}
				status, body := v.ask(t, w, v.request)
				require.Equal(t, http.StatusOK, status, body)
				require.Contains(t, body, `"jwt":"signed"`)
				require.Equal(t, v.ours, w.signed[0].Publish == matrixrtc.AllSources, "others publish at home")
				require.Equal(t, "verified", membership(t, db))
			})
		}
	})
}

// TestSilentHomeserver: no first token, and the same again for who holds one.
func TestSilentHomeserver(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for _, v := range ways() {
			t.Run(v.name, func(t *testing.T) {
				empty(t, db)
				w := newWorldWith(t, db, required)
				w.members.silent = errors.New("dial tcp 10.1.2.3:8008: refused")
				refused := func() string {
					status, body := v.ask(t, w, v.request)
					require.Equal(t, http.StatusBadGateway, status, body)
					require.JSONEq(t, `{"errcode":"M_UNKNOWN","error":"the homeserver does not answer; try again"}`, body)
					return body
				}
				first := refused()
				require.Empty(t, w.signed)
				require.Zero(t, count(t, db, "call_session"))

				w.members.silent, w.members.in = nil, map[string]bool{"!roomid:example.com " + string(v.user): true}
				status, _ := v.ask(t, w, v.request)
				require.Equal(t, http.StatusOK, status)
				w.members.silent = errors.New("silent")
				status, _ = v.ask(t, w, v.request)
				require.Equal(t, http.StatusOK, status)
				given, again := w.signed[0], w.signed[1]
				require.InDelta(t, time.Hour, again.Lifetime, float64(time.Minute))
				require.LessOrEqual(t, again.Lifetime, given.Lifetime, "what is given again ends no later")
				again.Lifetime = given.Lifetime
				require.Equal(t, given, again)

				for change, statement := range map[string]string{
					"expired":    "UPDATE call_grant SET expires_at = 1",
					"revoked":    "UPDATE call_grant SET revoked = true",
					"unverified": "UPDATE call_grant SET membership = 'unverified'",
				} {
					_, err := db.Exec(t.Context(), "UPDATE call_grant SET expires_at = issued_at + 3600000, revoked = false, membership = 'verified'")
					require.NoError(t, err)
					status, _ = v.ask(t, w, v.request)
					require.Equal(t, http.StatusOK, status)
					_, err = db.Exec(t.Context(), statement)
					require.NoError(t, err)
					require.Equal(t, first, refused(), change)
				}
			})
		}
	})
}

// kept is an answer that the homeserver keeps to itself.
type kept struct{}

func (kept) Error() string  { return "status 403 M_FORBIDDEN" }
func (kept) Withheld() bool { return true }

// TestWithheldMembership looks like a no to whoever has no token: a homeserver
// that tells of some rooms alone must not show which. Who has one gets it again.
func TestWithheldMembership(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for _, v := range ways() {
			empty(t, db)
			w := newWorldWith(t, db, required)
			_, no := v.ask(t, w, v.request)
			w.members.silent = fmt.Errorf("ask the homeserver: %w", kept{})
			status, body := v.ask(t, w, v.request)
			require.Equal(t, http.StatusForbidden, status)
			require.Equal(t, no, body)
			w.members.silent, w.members.in = nil, map[string]bool{"!roomid:example.com " + string(v.user): true}
			status, body = v.ask(t, w, v.request)
			require.Equal(t, http.StatusOK, status, body)
			w.members.silent = fmt.Errorf("ask the homeserver: %w", kept{})
			status, body = v.ask(t, w, v.request)
			require.Equal(t, http.StatusOK, status, body)
		}
	})
}

// TestSilentHomeserverOfASharedSFU: what is given again is what was given.
func TestSilentHomeserverOfASharedSFU(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, func(o *focus.Options) { required(o); o.SharedSFU = true })
		w.members.in = map[string]bool{"!roomid:example.com @ana:own.example": true}
		status, body := w.ask(t, "/get_token", standaloneRequest)
		require.Equal(t, http.StatusOK, status, body)
		w.members.silent = errors.New("silent")
		status, body = w.ask(t, "/get_token", standaloneRequest)
		require.Equal(t, http.StatusOK, status, body)
		require.EqualValues(t, matrixrtc.UnknownTerm, w.signed[0].Term)
		require.EqualValues(t, matrixrtc.UnknownTerm, w.signed[1].Term)
	})
}

// TestUnverified: the operator may choose to ask nobody, and the row says so.
func TestUnverified(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for _, v := range ways() {
			empty(t, db)
			w := newWorld(t, db)
			status, body := v.ask(t, w, v.request)
			require.Equal(t, http.StatusOK, status, body)
			require.Zero(t, w.members.asked)
			require.Equal(t, "unverified", membership(t, db))
		}
	})
}

func membership(t *testing.T, db *dbutil.Database) (proof string) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), "SELECT membership FROM call_grant").Scan(&proof))
	return proof
}

func empty(t *testing.T, db *dbutil.Database) {
	t.Helper()
	_, err := db.Exec(t.Context(), "DELETE FROM call_session")
	require.NoError(t, err)
}

// TestVouched: what a homeserver may ask for, and for whom.
func TestVouched(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		own, friend := matrixrtc.Caller{User: "@ana:own.example"}, matrixrtc.Caller{Origin: "friend.example"}
		const forbidden, invalid, bad = `"errcode":"M_FORBIDDEN"`, `"errcode":"M_INVALID_PARAM"`, `"errcode":"M_BAD_JSON"`
		replace := strings.NewReplacer
		for name, c := range map[string]struct {
			caller matrixrtc.Caller
			body   string
			status int
			want   string
			asks   int
		}{
			"another SFU":                   {own, replace("rtc.own", "rtc.evil").Replace(vouchedRequest), 400, invalid, 0},
			"another SFU, federated":        {friend, replace("rtc.own", "rtc.evil").Replace(federatedRequest), 400, invalid, 1},
			"another path":                  {own, replace("/prefix", "/prefix/x").Replace(vouchedRequest), 400, invalid, 0},
			"another spelling":              {own, replace("rtc.own.example/prefix", "RTC.own.example:443/prefix/").Replace(vouchedRequest), 200, "signed", 1},
			"own server by name":            {own, replace(`{`, `{"server_name":"own.example",`).Replace(vouchedRequest), 200, "signed", 1},
			"another server's SFU":          {own, replace(`{`, `{"server_name":"friend.example",`).Replace(vouchedRequest), 404, `"errcode":"M_NOT_FOUND"`, 0},
			"user of another server":        {friend, replace("@bo:friend", "@eve:evil").Replace(federatedRequest), 403, forbidden, 0},
			"one of ours, claimed by them":  {friend, replace("@bo:friend", "@ana:own").Replace(federatedRequest), 403, forbidden, 0},
			"a server whose name begins so": {friend, replace("@bo:friend.example", "@bo:friend.example.evil").Replace(federatedRequest), 403, forbidden, 0},
			"nobody, federated":             {friend, vouchedRequest, 400, bad, 0},
			"server without a rule":         {matrixrtc.Caller{Origin: "evil.example"}, replace("friend", "evil").Replace(federatedRequest), 403, forbidden, 0},
			"foreign user at the client":    {matrixrtc.Caller{User: "@bo:friend.example"}, vouchedRequest, 403, forbidden, 0},
			"claims to be somebody else":    {own, replace("@ana", "@eve").Replace(olderRequest), 403, forbidden, 0},
			"no member":                     {own, replace(`"member_id"`, `"memberid"`).Replace(vouchedRequest), 400, bad, 0},
			"no device, older body":         {own, replace("claimed_device_id", "device").Replace(olderRequest), 400, bad, 0},
			"no url":                        {own, replace(`"url"`, `"u"`).Replace(vouchedRequest), 400, bad, 0},
			"not JSON":                      {own, "{", 400, `"errcode":"M_NOT_JSON"`, 0},
			"too large":                     {own, `{"url":"` + strings.Repeat("x", 1<<20) + `"}`, 413, `"errcode":"M_TOO_LARGE"`, 0},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorldWith(t, db, required)
				w.members.in = map[string]bool{"!roomid:example.com @ana:own.example": true, "!roomid:example.com @bo:friend.example": true}
				v := way{serve: func(w *world, answer http.ResponseWriter, r *http.Request) { w.ServeVouched(answer, r, c.caller) }}
				status, body := v.ask(t, w, c.body)
				require.Equal(t, c.status, status, body)
				require.Contains(t, body, c.want)
				require.Equal(t, c.asks, w.members.asked)
			})
		}
	})
}

// TestVouchedIdentities: the shape of the body says which identity the other
// clients expect.
func TestVouchedIdentities(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		for _, v := range ways()[2:] {
			status, body := v.ask(t, w, v.request)
			require.Equal(t, http.StatusOK, status, body)
			require.JSONEq(t, `{"jwt":"signed"}`, body)
		}
		ana, bo := matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "DEV", ID: "m"}, matrixrtc.Member{UserID: "@bo:friend.example", ID: "m"}
		require.Equal(t, ana.ProxiedIdentity(), w.signed[0].Identity)
		require.Equal(t, ana.HashedIdentity(), w.signed[1].Identity)
		require.Equal(t, bo.ProxiedIdentity(), w.signed[2].Identity)
		require.Len(t, w.ensured, 2, "who may only join starts nothing")
	})
}

// TestVouchedLimits: a homeserver that is told to come back later does so at
// once, and four times; it is told no.
func TestVouchedLimits(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.wait = map[string]time.Duration{"user @ana:own.example": time.Second, "user @bo:friend.example": time.Second}
		all := ways()
		status, body := all[2].ask(t, w, all[2].request)
		require.Equal(t, http.StatusTooManyRequests, status)
		require.Contains(t, body, `"retry_after_ms":1000`)
		status, body = all[4].ask(t, w, all[4].request)
		require.Equal(t, http.StatusForbidden, status)
		require.Contains(t, body, "M_LIMIT_EXCEEDED")
	})
}

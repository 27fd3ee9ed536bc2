package focus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// world is a Service with everything around it pretended, but for the
// database, which is real.
type world struct {
	mu sync.Mutex // of what several may ask at once: counted, removed
	*focus.Service
	store   *focus.Store
	db      *dbutil.Database
	asked   int
	answer  id.UserID
	failure error
	access  map[string]matrixrtc.Access
	ensured []matrixrtc.SFURoom
	sfuDown error
	most    int // participants that the SFU has to be told of
	signed  []matrixrtc.Grant
	wait    map[string]time.Duration // how long those have to wait
	counted []string
	members members
	present map[matrixrtc.SFURoom][]matrixrtc.Participant
	listing error // what asking for the present fails with
	removed []matrixrtc.Identity
	cut     []matrixrtc.Identity
	allowed []string // who, and what they may send now
	ended   []matrixrtc.SFURoom
	refuses error // what changing rights on the SFU fails with
	told    []matrixrtc.SFUEvent
	leaves  *leaves
	friend  bool // asks as a user of friend.example
	// observed are the events that were told, with how many rows there were.
	observed []string
}

func (w *world) Address(address string) time.Duration { return w.count("address " + address) }

func (w *world) Server(name string) time.Duration { return w.count("server " + name) }

func (w *world) User(user id.UserID) time.Duration { return w.count("user " + user.String()) }

func (w *world) count(what string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counted = append(w.counted, what)
	return w.wait[what]
}

func (w *world) Verify(context.Context, matrixrtc.OpenIDToken) (id.UserID, error) {
	w.asked++
	return w.answer, w.failure
}

func (w *world) Access(server string) matrixrtc.Access { return w.access[server] }

func (w *world) EnsureRoom(_ context.Context, room matrixrtc.SFURoom, o matrixrtc.RoomOptions) error {
	if w.sfuDown != nil {
		return w.sfuDown
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if o != (matrixrtc.RoomOptions{EmptyTimeout: 5 * time.Minute, DepartureTimeout: 20 * time.Second, MaxParticipants: w.most}) {
		return errors.New("not the configured options")
	}
	w.ensured = append(w.ensured, room)
	return nil
}

func (w *world) Sign(g matrixrtc.Grant) (string, error) {
	w.signed = append(w.signed, g)
	return "signed", nil
}

func (w *world) Participants(_ context.Context, room matrixrtc.SFURoom) ([]matrixrtc.Participant, error) {
	return w.present[room], w.listing
}

func (w *world) Remove(_ context.Context, _ matrixrtc.SFURoom, who matrixrtc.Identity) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed = append(w.removed, who)
	return nil
}

func (w *world) Allow(_ context.Context, _ matrixrtc.SFURoom, who matrixrtc.Identity, p matrixrtc.Permissions) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses != nil {
		return w.refuses
	}
	w.allowed = append(w.allowed, fmt.Sprintf("%s [%s]", who, p.Publish))
	return nil
}

func (w *world) End(_ context.Context, room matrixrtc.SFURoom) error {
	w.ended = append(w.ended, room)
	return nil
}

func (w *world) Cut(_ matrixrtc.SFURoom, who matrixrtc.Identity) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = append(w.cut, who)
}

// SFUEvent implements focus.Observer.
func (w *world) SFUEvent(ctx context.Context, e matrixrtc.SFUEvent) {
	w.told = append(w.told, e)
	var n int
	if err := w.db.QueryRow(ctx, "SELECT COUNT(*) FROM call_participant WHERE participant_sid = $1", e.ParticipantSID).Scan(&n); err == nil {
		w.observed = append(w.observed, fmt.Sprintf("%s %s %d", e.Type, e.ParticipantSID, n))
	}
}

// ticket is one of the last token that was signed.
func (w *world) ticket(who matrixrtc.Identity) matrixrtc.Ticket {
	t := matrixrtc.Ticket{Room: roomHash, Identity: who, Publish: matrixrtc.AllSources, MadeAt: time.Unix(time.Now().Unix(), 0)}
	if len(w.signed) > 0 {
		t.Term = w.signed[len(w.signed)-1].Term
	}
	return t
}

// admit is whether the ticket passes.
func (w *world) admit(t *testing.T, ticket matrixrtc.Ticket) error {
	t.Helper()
	_, err := w.Admit(t.Context(), ticket)
	return err
}

func newWorld(t *testing.T, db *dbutil.Database) *world {
	t.Helper()
	return newWorldWith(t, db, func(*focus.Options) {})
}

// required has the service ask who is in the room.
func required(o *focus.Options) { o.Config.Membership = "required" }

// newWorldWith is newWorld with other options.
func newWorldWith(t *testing.T, db *dbutil.Database, change func(*focus.Options)) *world {
	t.Helper()
	w := &world{
		db:     db,
		leaves: &leaves{},
		store:  focus.NewStore(db, db),
		answer: "@ana:own.example",
		access: map[string]matrixrtc.Access{
			"own.example":    {Join: true, Publish: matrixrtc.AllSources, Create: true},
			"friend.example": {Join: true},
		},
	}
	options := focus.Options{
		Config:    config.Focus{Membership: "unverified", TokenLifetime: time.Hour, EmptyTimeout: 5 * time.Minute, DepartureTimeout: 20 * time.Second, Delegation: true},
		Leaves:    w.leaves,
		Store:     w.store,
		Verifier:  w,
		Policy:    w,
		SFUs:      map[string]focus.SFU{"embedded": w},
		Home:      "embedded",
		Observers: []focus.Observer{w},
		Tokens:    w,
		Limits:    w,
		Members:   &w.members, ServerName: "own.example",
		PublicURL: &url.URL{Scheme: "https", Host: "rtc.own.example", Path: "/prefix"},
		Log:       zerolog.Nop(), Registerer: prometheus.NewRegistry(),
	}
	change(&options)
	var err error
	w.Service, err = focus.New(options)
	require.NoError(t, err)
	w.UseDoor(w)
	return w
}

// ask posts body to the route and returns status and body.
func (w *world) ask(t *testing.T, route, body string) (int, string) {
	t.Helper()
	recorder := httptest.NewRecorder()
	w.Serve(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, route, strings.NewReader(body)), route)
	return recorder.Code, recorder.Body.String()
}

const (
	legacyRequest = `{"room":"!roomid:example.com","openid_token":{"access_token":"tok","token_type":"Bearer",
		"matrix_server_name":"own.example","expires_in":3600},"device_id":"DEV"}`
	standaloneRequest = `{"room_id":"!roomid:example.com","slot_id":"m.call#ROOM","openid_token":{"access_token":"tok",
		"matrix_server_name":"own.example"},"member":{"id":"m","claimed_user_id":"@ana:own.example","claimed_device_id":"DEV"},
		"a_field_of_tomorrow":{"x":1}}`
	roomHash = "F4oOprKFBq6JHqy2qYpq6UQQmR7hCvxkQQoUrd0+SbI"
	granted  = `{"url":"wss://rtc.own.example/prefix","jwt":"signed"}`
)

func TestTokens(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		status, body := w.ask(t, "/sfu/get", legacyRequest)
		require.Equal(t, http.StatusOK, status, body)
		require.JSONEq(t, granted, body)
		status, body = w.ask(t, "/get_token", standaloneRequest)
		require.Equal(t, http.StatusOK, status, body)
		require.JSONEq(t, granted, body)

		hashed := matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "DEV", ID: "m"}.HashedIdentity()
		require.Equal(t, []matrixrtc.Grant{
			{Room: roomHash, Identity: "@ana:own.example:DEV", Publish: matrixrtc.AllSources, Lifetime: time.Hour},
			{Room: roomHash, Identity: hashed, Publish: matrixrtc.AllSources, Lifetime: time.Hour},
		}, w.signed)
		require.Equal(t, []matrixrtc.SFURoom{roomHash, roomHash}, w.ensured, "both routes meet in one SFU room")

		var user, device, member, server, route string
		require.NoError(t, db.QueryRow(t.Context(),
			"SELECT user_id, device_id, member_id, server_name, route FROM call_grant WHERE sfu_room = $1 AND identity = $2",
			roomHash, hashed).Scan(&user, &device, &member, &server, &route))
		require.Equal(t, []string{"@ana:own.example", "DEV", "m", "own.example", "standalone"}, []string{user, device, member, server, route})
		require.Equal(t, 1, count(t, db, "call_session"))
	})
}

func TestWhoMayOnlyJoinStartsNothing(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.answer = "@bo:friend.example"
		status, body := w.ask(t, "/sfu/get", strings.ReplaceAll(legacyRequest, "own.example", "friend.example"))
		require.Equal(t, http.StatusOK, status, body)
		require.Empty(t, w.ensured)
		require.Zero(t, w.signed[0].Publish)

		require.ErrorIs(t, w.admit(t, w.ticket("@bo:friend.example:DEV")), focus.ErrNoCall)
		require.Empty(t, w.ensured, "its connection does not start the call either")

		w.answer = "@ana:own.example"
		_, _ = w.ask(t, "/sfu/get", legacyRequest)
		require.Len(t, w.ensured, 1)
		admission, err := w.Admit(t.Context(), w.ticket("@bo:friend.example:DEV"))
		require.NoError(t, err)
		require.Equal(t, matrixrtc.Admission{SFU: "embedded", Epoch: 1}, admission, "its grant does not allow to publish")
		require.Len(t, w.ensured, 2, "in an open call the SFU may have to be reminded of the room")
	})
}

func TestAdmitNeedsAGrant(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_, _ = w.ask(t, "/sfu/get", legacyRequest)
		require.NoError(t, w.admit(t, w.ticket("@ana:own.example:DEV")))
		require.ErrorIs(t, w.admit(t, w.ticket("@ana:own.example:OTHER")), focus.ErrNotAdmitted)
		elsewhere := w.ticket("@ana:own.example:DEV")
		elsewhere.Room = "other"
		require.ErrorIs(t, w.admit(t, elsewhere), focus.ErrNotAdmitted)
	})
}

func TestRefusals(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for name, c := range map[string]struct {
			route, body string
			prepare     func(*world)
			status      int
			code        string
			asks        int
		}{
			"unknown server": {route: "/sfu/get", body: strings.ReplaceAll(legacyRequest, "own.example", "evil.example"),
				status: 403, code: "M_FORBIDDEN"},
			"homeserver says no": {route: "/sfu/get", body: legacyRequest, status: 401, code: "M_UNAUTHORIZED", asks: 1,
				prepare: func(w *world) { w.failure = errors.New("the token is SECRET") }},
			"claims to be somebody else": {route: "/get_token", body: standaloneRequest, status: 401, code: "M_UNAUTHORIZED", asks: 1,
				prepare: func(w *world) { w.answer = "@eve:own.example" }},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, db)
				if c.prepare != nil {
					c.prepare(w)
				}
				status, body := w.ask(t, c.route, c.body)
				require.Equal(t, c.status, status, body)
				require.Contains(t, body, `"errcode":"`+c.code+`"`)
				require.NotContains(t, body, "SECRET")
				require.Equal(t, c.asks, w.asked)
				require.Empty(t, w.signed)
				require.Empty(t, w.ensured)
				require.Zero(t, count(t, db, "call_session"))
				require.Zero(t, count(t, db, "call_grant"))
			})
		}
	})
}

func TestSFUDown(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.sfuDown = errors.New("dial tcp 10.1.2.3:7880: refused")
		status, body := w.ask(t, "/sfu/get", legacyRequest)
		require.Equal(t, http.StatusInternalServerError, status)
		require.Contains(t, body, "M_UNKNOWN")
		require.NotContains(t, body, "10.1.2.3")
		require.Empty(t, w.signed)
		w.sfuDown = nil
		status, _ = w.ask(t, "/sfu/get", legacyRequest)
		require.Equal(t, http.StatusOK, status, "well again as soon as the SFU is")
	})
}

func TestParticipants(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_, _ = w.ask(t, "/sfu/get", legacyRequest)
		at := time.UnixMilli(time.Now().Add(time.Second).Unix() * 1000)
		event := func(kind matrixrtc.SFUEventType, number, sid string) matrixrtc.SFUEvent {
			return matrixrtc.SFUEvent{ID: number, Type: kind, Room: roomHash, At: at,
				Identity: "@ana:own.example:DEV", ParticipantSID: sid, Reason: "CLIENT_INITIATED"}
		}
		for _, e := range []matrixrtc.SFUEvent{
			event(matrixrtc.ParticipantJoined, "1", "PA_1"),
			event(matrixrtc.ParticipantJoined, "1", "PA_1"), // repeated
			event(matrixrtc.ParticipantLeft, "4", "PA_2"),   // before its join
			event(matrixrtc.ParticipantJoined, "3", "PA_2"),
			{ID: "9", Type: matrixrtc.ParticipantJoined, Room: "not ours", Identity: "x", ParticipantSID: "PA_9", At: at},
		} {
			require.NoError(t, w.HandleSFUEvent(t.Context(), e))
		}
		require.Equal(t, map[string]string{"PA_1": "joined", "PA_2": "left"}, participants(t, db))

		require.NoError(t, w.SFURestarted(t.Context()))
		require.Equal(t, map[string]string{"PA_1": "left", "PA_2": "left"}, participants(t, db))

		require.NoError(t, w.HandleSFUEvent(t.Context(), event(matrixrtc.ParticipantJoined, "5", "PA_3")))
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "6", Type: matrixrtc.RoomFinished, Room: roomHash, At: at}))
		require.Equal(t, map[string]string{"PA_1": "left", "PA_2": "left", "PA_3": "left"}, participants(t, db))
		standing, err := w.store.Standing(t.Context(), roomHash, "@ana:own.example:DEV")
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(time.Hour), standing.ExpiresAt, time.Minute)
		standing.ExpiresAt = time.Time{}
		require.Equal(t, focus.Standing{
			Granted: true, Publish: matrixrtc.AllSources, MayCreate: true, SFU: "embedded", Epoch: 1, UserID: "@ana:own.example",
			ServerName: "own.example", StartedBy: "own.example",
			Slot: matrixrtc.SlotKey{RoomID: "!roomid:example.com", SlotID: "m.call#ROOM"},
		}, standing)
	})
}

func TestSweepKeepsWhatIsInUse(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_, _ = w.ask(t, "/sfu/get", legacyRequest)
		_, _ = w.ask(t, "/get_token", strings.NewReplacer("!roomid", "!other", `"tok"`, `"tok2"`).Replace(standaloneRequest))
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "1", Type: matrixrtc.ParticipantJoined,
			Room: roomHash, Identity: "@ana:own.example:DEV", ParticipantSID: "PA_1", At: time.Now()}))

		require.NoError(t, w.store.Sweep(t.Context(), time.Now().Add(time.Hour)))
		require.Equal(t, 2, count(t, db, "call_grant"), "a day has not passed")
		require.NoError(t, w.store.Sweep(t.Context(), time.Now().Add(26*time.Hour)))
		require.Equal(t, 1, count(t, db, "call_grant"), "who is in a call keeps the grant")
		require.Equal(t, 1, count(t, db, "call_session"))
		require.Zero(t, count(t, db, "webhook_seen"))

		require.NoError(t, w.SFURestarted(t.Context()))
		require.NoError(t, w.store.Sweep(t.Context(), time.Now().Add(26*time.Hour)))
		require.Zero(t, count(t, db, "call_grant"))
		require.Zero(t, count(t, db, "call_participant"))
		require.Zero(t, count(t, db, "call_session"))
	})
}

func count(t *testing.T, db *dbutil.Database, table string) int {
	t.Helper()
	var n int
	require.NoError(t, db.QueryRow(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

func participants(t *testing.T, db *dbutil.Database) map[string]string {
	t.Helper()
	rows, err := db.Query(t.Context(), "SELECT participant_sid, state FROM call_participant")
	require.NoError(t, err)
	defer rows.Close()
	states := map[string]string{}
	for rows.Next() {
		var sid, state string
		require.NoError(t, rows.Scan(&sid, &state))
		states[sid] = state
	}
	require.NoError(t, rows.Err())
	return states
}

// Each limit stands before what it protects: the address before the body is
// read, the server before its homeserver is asked, the user before anything is
// stored.
func TestLimits(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		const address, server, user = "address 192.0.2.1", "server own.example", "user @ana:own.example"
		for _, c := range []struct {
			over    string
			counted []string
			asked   int
		}{
			{address, []string{address}, 0},
			{server, []string{address, server}, 0},
			{user, []string{address, server, user}, 1},
		} {
			w := newWorld(t, db)
			w.wait = map[string]time.Duration{c.over: 1500 * time.Millisecond}
			recorder := httptest.NewRecorder()
			w.Serve(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sfu/get", strings.NewReader(legacyRequest)), "/sfu/get")
			require.Equal(t, http.StatusTooManyRequests, recorder.Code)
			require.Equal(t, "2", recorder.Header().Get("Retry-After"))
			require.JSONEq(t, `{"errcode":"M_LIMIT_EXCEEDED","error":"too many requests; come back later","retry_after_ms":1500}`, recorder.Body.String())
			require.Equal(t, c.counted, w.counted)
			require.Equal(t, c.asked, w.asked)
			require.Zero(t, count(t, db, "call_session"))
		}
	})
}

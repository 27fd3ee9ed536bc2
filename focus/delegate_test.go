package focus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// leaves takes leaves over and remembers them.
type leaves struct {
	off         bool
	unreachable error
	failure     error
	got         []matrixrtc.DelayedLeave
	// event and eventErr are what is found; lookedUp for whom was looked.
	event    matrixrtc.ScheduledEvent
	eventErr error
	lookedUp []string
}

func (l *leaves) Scheduled(_ context.Context, server string, user id.UserID, event matrixrtc.DelayID) (matrixrtc.ScheduledEvent, error) {
	l.lookedUp = append(l.lookedUp, server+" "+string(user)+" "+event.Reveal())
	return l.event, l.eventErr
}

func (l *leaves) Available() bool { return !l.off }

func (l *leaves) Reachable(context.Context, string) error { return l.unreachable }

func (l *leaves) Delegate(_ context.Context, d matrixrtc.DelayedLeave) error {
	if l.failure == nil {
		l.got = append(l.got, d)
	}
	return l.failure
}

// delayed adds a leave to a request.
func delayed(request, fields string) string { return strings.Replace(request, "{", "{"+fields+",", 1) }

const (
	delegateRoute = "/delegate_delayed_leave"
	pair          = `"delay_id":"syd_x","delay_timeout":18000,"delay_cs_api_url":"https://ignored.example"`
)

func TestDelegation(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		legacy := matrixrtc.Identity("@ana:own.example:DEV")
		hashed := matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "DEV", ID: "m"}.HashedIdentity()
		for route, c := range map[string]struct {
			request  string
			want     matrixrtc.DelayedLeave
			answer   string
			ensured  int
			sessions int
		}{
			delegateRoute: {standaloneRequest, matrixrtc.DelayedLeave{Identity: hashed, Also: legacy}, `{}`, 0, 0},
			"/get_token":  {standaloneRequest, matrixrtc.DelayedLeave{Identity: hashed, Also: legacy}, granted, 1, 1},
			"/sfu/get":    {legacyRequest, matrixrtc.DelayedLeave{Identity: legacy}, granted, 1, 1},
		} {
			w := newWorld(t, db)
			before := count(t, db, "call_grant")
			status, body := w.ask(t, route, delayed(c.request, pair))
			require.Equal(t, http.StatusOK, status, body)
			require.JSONEq(t, c.answer, body)
			c.want.Room, c.want.User, c.want.Server = roomHash, "@ana:own.example", "own.example"
			c.want.DelayID, c.want.Delay = "syd_x", 18*time.Second
			require.Equal(t, []matrixrtc.DelayedLeave{c.want}, w.leaves.got)
			require.Len(t, w.ensured, c.ensured)
			require.Equal(t, c.sessions, count(t, db, "call_grant")-before)
		}
	})
}

// A device ID with a colon makes no other identity: @ana:hs with 8448:D would be
// @ana:hs:8448 with D, whose leave is not ana's to replace.
func TestALeaveIsForNobodyElse(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		status, body := w.ask(t, delegateRoute, delayed(strings.Replace(standaloneRequest, `"DEV"`, `"8448:D"`, 1), pair))
		require.Equal(t, http.StatusOK, status, body)
		require.Len(t, w.leaves.got, 1)
		require.Empty(t, w.leaves.got[0].Also)
		require.Equal(t, matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "8448:D", ID: "m"}.HashedIdentity(), w.leaves.got[0].Identity)
	})
}

// Nothing is made for a request whose leave is refused, and the answer is the
// one that clients understand.
func TestRefusedDelegations(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		restricted := func(w *world) {
			w.answer = "@ana:friend.example"
			w.friend = true
		}
		off := func(w *world) { w.leaves.off = true }
		disabled := func(w *world) { w.Reconfigure(config.Focus{TokenLifetime: time.Hour}) }
		lost := func(w *world) { w.leaves.unreachable = errors.New("SECRET host") }
		for name, c := range map[string]struct {
			route   string
			fields  string
			prepare func(*world)
			status  int
			code    string
			asks    int
		}{
			"no leave to hand over":         {delegateRoute, `"x":1`, nil, 400, "M_BAD_JSON", 0},
			"an ID alone":                   {delegateRoute, `"delay_id":"d"`, nil, 400, "M_BAD_JSON", 0},
			"a delay alone":                 {"/get_token", `"delay_timeout":1`, nil, 400, "M_BAD_JSON", 0},
			"an ID alone with a token":      {"/sfu/get", `"delay_id":"d"`, nil, 400, "M_BAD_JSON", 0},
			"a delay of 0":                  {"/sfu/get", `"delay_id":"d","delay_timeout":0`, nil, 400, "M_BAD_JSON", 0},
			"a delay of -1":                 {"/sfu/get", `"delay_id":"d","delay_timeout":-1`, nil, 400, "M_BAD_JSON", 0},
			"a delay far below nothing":     {"/sfu/get", `"delay_id":"d","delay_timeout":-1e300`, nil, 400, "M_BAD_JSON", 0},
			"a delay that is a text":        {"/sfu/get", `"delay_id":"d","delay_timeout":"1000"`, nil, 400, "M_NOT_JSON", 0},
			"an ID that is a number":        {"/sfu/get", `"delay_id":7,"delay_timeout":1000`, nil, 400, "M_NOT_JSON", 0},
			"an ID that climbs":             {delegateRoute, `"delay_id":"..","delay_timeout":1000`, nil, 400, "M_BAD_JSON", 0},
			"an ID that is a page":          {delegateRoute, `"delay_id":"` + strings.Repeat("d", 256) + `","delay_timeout":1000`, nil, 400, "M_BAD_JSON", 0},
			"an ID with a line":             {delegateRoute, `"delay_id":"a\nb","delay_timeout":1000`, nil, 400, "M_BAD_JSON", 0},
			"who may only join":             {delegateRoute, pair, restricted, 403, "M_FORBIDDEN", 1},
			"who may only join, legacy":     {"/sfu/get", pair, restricted, 400, "M_BAD_JSON", 1},
			"who may only join, standalone": {"/get_token", pair, restricted, 400, "M_BAD_JSON", 1},
			"somebody else":                 {delegateRoute, pair, func(w *world) { w.answer = "@eve:own.example" }, 401, "M_UNAUTHORIZED", 1},
			"no proof":                      {delegateRoute, pair, func(w *world) { w.failure = errors.New("no") }, 401, "M_UNAUTHORIZED", 1},
			"no client API":                 {delegateRoute, pair, lost, 400, "M_BAD_JSON", 1},
			"no client API, legacy":         {"/sfu/get", pair, lost, 400, "M_BAD_JSON", 1},
			"no client API, standalone":     {"/get_token", pair, lost, 400, "M_BAD_JSON", 1},
			"the homeserver has none":       {delegateRoute, pair, off, 404, "M_UNRECOGNIZED", 0},
			"the homeserver has none, then": {"/get_token", pair, off, 400, "M_BAD_JSON", 0},
			"switched off":                  {delegateRoute, pair, disabled, 404, "M_UNRECOGNIZED", 0},
			"switched off, legacy":          {"/sfu/get", pair, disabled, 400, "M_BAD_JSON", 0},
			"too many":                      {delegateRoute, pair, func(w *world) { w.leaves.failure = fmt.Errorf("x: %w", matrixrtc.ErrTooManyLeaves) }, 429, "M_LIMIT_EXCEEDED", 1},
			"at the end":                    {delegateRoute, pair, func(w *world) { w.leaves.failure = matrixrtc.ErrStopping }, 503, "M_UNKNOWN", 1},
			"not stored":                    {delegateRoute, pair, func(w *world) { w.leaves.failure = errors.New("SECRET disk") }, 500, "M_UNKNOWN", 1},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, db)
				if c.prepare != nil {
					c.prepare(w)
				}
				request := standaloneRequest
				if c.route == "/sfu/get" {
					request = legacyRequest
				}
				if w.friend {
					request = strings.ReplaceAll(request, "own.example", "friend.example")
				}
				status, body := w.ask(t, c.route, delayed(request, c.fields))
				require.Equal(t, c.status, status, body)
				require.Contains(t, body, `"errcode":"`+c.code+`"`)
				require.NotContains(t, body, "SECRET")
				require.NotContains(t, body, "syd_x")
				require.Equal(t, c.asks, w.asked)
				require.Empty(t, w.leaves.got)
				require.Empty(t, w.ensured)
				require.Zero(t, count(t, db, "call_grant"))
			})
		}
	})
}

// Clients ask for the route with an empty body and no proof: any answer but
// 404 says that leaves are taken over.
func TestDelegationIsProbed(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		status, body := w.ask(t, delegateRoute, "")
		require.Equal(t, http.StatusBadRequest, status, body)
		w.leaves.off = true
		status, body = w.ask(t, delegateRoute, "")
		require.Equal(t, http.StatusNotFound, status, body)

		w.leaves.off = false
		recorder := httptest.NewRecorder()
		w.Serve(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, delegateRoute, nil), delegateRoute)
		require.Equal(t, http.StatusMethodNotAllowed, recorder.Code)
		require.Empty(t, recorder.Body.String())
	})
}

func TestDelaysOfAnySize(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for text, want := range map[string]time.Duration{
			"1": time.Millisecond, "0.5": time.Millisecond, "18000": 18 * time.Second, "1.8e4": 18 * time.Second,
			"2147483648": 2147483648 * time.Millisecond, "9223372036854775808": 1<<63 - 1, "1e18": 1<<63 - 1, "1e999": 1<<63 - 1,
		} {
			w := newWorld(t, db)
			status, body := w.ask(t, delegateRoute, delayed(standaloneRequest, `"delay_id":"d","delay_timeout":`+text))
			require.Equal(t, http.StatusOK, status, body)
			require.InDelta(t, want, w.leaves.got[0].Delay, float64(time.Millisecond), text)
			require.Positive(t, w.leaves.got[0].Delay)
		}
	})
}

func TestDelegationWhileTheSFUIsDown(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		w.sfuDown = errors.New("refused")
		status, body := w.ask(t, delegateRoute, delayed(standaloneRequest, pair))
		require.Equal(t, http.StatusOK, status, body)
		status, _ = w.ask(t, "/get_token", delayed(standaloneRequest, pair))
		require.Equal(t, http.StatusInternalServerError, status)
		require.Len(t, w.leaves.got, 1)
	})
}

func TestObserversAreToldOfWhatIsStored(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_, _ = w.ask(t, "/sfu/get", legacyRequest)
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "1", Type: matrixrtc.ParticipantJoined,
			Room: roomHash, Identity: "@ana:own.example:DEV", ParticipantSID: "PA_1"}))
		require.Equal(t, []string{"participant_joined PA_1 1"}, w.observed)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, w.HandleSFUEvent(gone, matrixrtc.SFUEvent{ID: "2", Type: matrixrtc.ParticipantLeft, Room: roomHash}))
		require.Len(t, w.observed, 1, "what could not be stored comes again")
	})
}

// The ID of a delayed event is a secret: who knows it may send the event.
func TestDelayIDsDoNotPrint(t *testing.T) {
	d := matrixrtc.DelayedLeave{DelayID: "syd_secret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		require.NotContains(t, fmt.Sprintf(verb, d), "syd_secret")
		require.NotContains(t, fmt.Sprintf(verb, &d), "syd_secret")
		require.NotContains(t, fmt.Sprintf(verb, d.DelayID), "syd_secret")
		require.NotContains(t, fmt.Sprintf(verb, d.DelayID), fmt.Sprintf("%x", "syd_secret"))
	}
	encoded, err := json.Marshal(d)
	require.NoError(t, err)
	require.NotContains(t, string(encoded), "syd_secret")
}

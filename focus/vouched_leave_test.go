package focus_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
	"passerelle/focus/proxied"
	"passerelle/migrations/migrationstest"
)

const proxiedLeave = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave"

// hand has the homeserver hand a request of the user over.
func (w *world) hand(t *testing.T, path, user, body string) (int, string) {
	t.Helper()
	const hsToken = "hs-3Kt8Ye1Uw6Ri0Ob5Nc9Ls2Gd7Ma4Qz"
	listener := proxied.New(proxied.Options{
		HSToken: hsToken, Token: w.ServeVouched, Delegate: w.ServeVouchedLeave,
		Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
	})
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	request.Header.Set("Authorization", "Bearer "+hsToken)
	request.Header.Set("X-Matrix-User-Identifier", user)
	recorder := httptest.NewRecorder()
	listener.ServeHTTP(recorder, request)
	require.Equal(t, "application/json", recorder.Header().Get("Content-Type"))
	require.True(t, strings.HasPrefix(recorder.Body.String(), "{"), recorder.Body)
	return recorder.Code, recorder.Body.String()
}

// TestHandedOverLeaves: both bodies, on both paths, for the very identity that
// get_token gives for the same body.
func TestHandedOverLeaves(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		ana := matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "DEV", ID: "m"}
		for name, c := range map[string]struct {
			path, request string
			want          matrixrtc.DelayedLeave
		}{
			"newer": {proxiedLeave, vouchedRequest, matrixrtc.DelayedLeave{Identity: ana.ProxiedIdentity()}},
			"older": {"/_matrix/client/v1/rtc/livekit/delegate_delayed_leave", olderRequest,
				matrixrtc.DelayedLeave{Identity: ana.HashedIdentity(), Also: ana.LegacyIdentity()}},
		} {
			t.Run(name, func(t *testing.T) {
				empty(t, db)
				w := newWorldWith(t, db, required)
				w.members.in = map[string]bool{"!roomid:example.com @ana:own.example": true}
				w.leaves.event = matrixrtc.ScheduledEvent{RoomID: "!roomid:example.com", Delay: time.Hour}
				status, body := w.hand(t, c.path, "@ana:own.example", delayed(c.request, `"delay_id":"syd_x","delay_timeout":7`))
				require.Equal(t, http.StatusOK, status, body)
				require.Equal(t, "{}", body)
				c.want.Room, c.want.User, c.want.Server, c.want.DelayID = roomHash, "@ana:own.example", "own.example", "syd_x"
				c.want.Delay = time.Hour // the homeserver's word, and not the client's
				require.Equal(t, []matrixrtc.DelayedLeave{c.want}, w.leaves.got)
				require.Equal(t, []string{"own.example @ana:own.example syd_x"}, w.leaves.lookedUp)
				require.Empty(t, w.ensured)
				require.Zero(t, count(t, db, "call_grant"))

				status, body = w.hand(t, strings.Replace(c.path, "delegate_delayed_leave", "get_token", 1), "@ana:own.example", c.request)
				require.Equal(t, http.StatusOK, status, body)
				require.Equal(t, w.signed[0].Identity, w.leaves.got[0].Identity)
			})
		}
	})
}

// TestHandedOverLeavesThatAreHidden: most registrations may not look.
func TestHandedOverLeavesThatAreHidden(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for fields, want := range map[string]time.Duration{
			`"delay_id":"syd_x"`:                         5 * time.Minute,
			`"delay_id":"syd_x","delay_timeout":0`:       5 * time.Minute,
			`"delay_id":"syd_x","delay_timeout":3600000`: time.Hour,
			`"delay_id":"syd_x","delay_timeout":0.1`:     time.Millisecond,
		} {
			w := newWorld(t, db)
			w.leaves.eventErr = matrixrtc.ErrEventHidden
			status, body := w.hand(t, proxiedLeave, "@ana:own.example", delayed(vouchedRequest, fields))
			require.Equal(t, http.StatusOK, status, body)
			require.Len(t, w.leaves.got, 1)
			require.Equal(t, want, w.leaves.got[0].Delay, fields)
		}
	})
}

// TestRefusedHandedOverLeaves: nothing is taken over, and whom the answer is
// for never takes it for the end of their session.
func TestRefusedHandedOverLeaves(t *testing.T) {
	const id, ana = `"delay_id":"syd_x"`, "@ana:own.example"
	with := func(old, fresh string) string { return strings.Replace(delayed(vouchedRequest, id), old, fresh, 1) }
	event := func(e matrixrtc.ScheduledEvent, err error) func(*world) {
		return func(w *world) { w.leaves.event, w.leaves.eventErr = e, err }
	}
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for name, c := range map[string]struct {
			user, request string
			prepare       func(*world)
			status        int
			code          string
		}{
			"no ID":                        {ana, vouchedRequest, nil, 400, "M_BAD_JSON"},
			"an empty ID":                  {ana, delayed(vouchedRequest, `"delay_id":""`), nil, 400, "M_BAD_JSON"},
			"an ID that is a number":       {ana, delayed(vouchedRequest, `"delay_id":7`), nil, 400, "M_NOT_JSON"},
			"an ID that climbs":            {ana, delayed(vouchedRequest, `"delay_id":".."`), nil, 400, "M_BAD_JSON"},
			"an ID with a line":            {ana, delayed(vouchedRequest, `"delay_id":"a\nb"`), nil, 400, "M_BAD_JSON"},
			"a long ID":                    {ana, delayed(vouchedRequest, `"delay_id":"`+strings.Repeat("d", 256)+`"`), nil, 400, "M_BAD_JSON"},
			"a delay below nothing":        {ana, delayed(vouchedRequest, id+`,"delay_timeout":-1`), nil, 400, "M_BAD_JSON"},
			"no JSON":                      {ana, "delay", nil, 400, "M_NOT_JSON"},
			"nothing":                      {ana, "", nil, 400, "M_NOT_JSON"},
			"a page":                       {ana, delayed(vouchedRequest, `"x":"`+strings.Repeat("x", 64<<10)+`"`), nil, 413, "M_TOO_LARGE"},
			"no member":                    {ana, with(`"member_id":"m"`, `"member":{}`), nil, 400, "M_BAD_JSON"},
			"no room":                      {ana, with(`"room_id"`, `"x"`), nil, 400, "M_BAD_JSON"},
			"another SFU":                  {ana, with("rtc.own.example", "rtc.friend.example"), nil, 400, "M_INVALID_PARAM"},
			"another server's SFU":         {ana, delayed(vouchedRequest, id+`,"server_name":"friend.example"`), nil, 400, "M_INVALID_PARAM"},
			"a user of another server":     {"@bo:friend.example", delayed(vouchedRequest, id), nil, 403, "M_FORBIDDEN"},
			"no user":                      {"own.example", delayed(vouchedRequest, id), nil, 403, "M_FORBIDDEN"},
			"somebody else":                {"@eve:own.example", delayed(olderRequest, id), nil, 403, "M_FORBIDDEN"},
			"who is not in the room":       {"@eve:own.example", delayed(vouchedRequest, id), nil, 403, "M_FORBIDDEN"},
			"another room":                 {ana, with("!roomid", "!other"), nil, 403, "M_FORBIDDEN"},
			"a silent homeserver":          {ana, delayed(vouchedRequest, id), func(w *world) { w.members.silent = errors.New("SECRET") }, 502, "M_UNKNOWN"},
			"who may only join":            {ana, delayed(vouchedRequest, id), func(w *world) { w.access["own.example"] = matrixrtc.Access{Join: true} }, 403, "M_FORBIDDEN"},
			"who may not even":             {ana, delayed(vouchedRequest, id), func(w *world) { w.access = nil }, 403, "M_FORBIDDEN"},
			"an event that there is not":   {ana, delayed(vouchedRequest, id), event(matrixrtc.ScheduledEvent{}, matrixrtc.ErrNoEvent), 400, "M_INVALID_PARAM"},
			"an event of another room":     {ana, delayed(vouchedRequest, id), event(matrixrtc.ScheduledEvent{RoomID: "!other:example.com", Delay: time.Hour}, nil), 400, "M_INVALID_PARAM"},
			"an event without a delay":     {ana, delayed(vouchedRequest, id), event(matrixrtc.ScheduledEvent{RoomID: "!roomid:example.com"}, nil), 400, "M_INVALID_PARAM"},
			"an event that nobody says of": {ana, delayed(vouchedRequest, id), event(matrixrtc.ScheduledEvent{}, errors.New("SECRET")), 503, "M_UNKNOWN"},
			"too many requests":            {ana, delayed(vouchedRequest, id), func(w *world) { w.wait = map[string]time.Duration{"user @ana:own.example": time.Second} }, 429, "M_LIMIT_EXCEEDED"},
			"too many leaves":              {ana, delayed(vouchedRequest, id), func(w *world) { w.leaves.failure = matrixrtc.ErrTooManyLeaves }, 429, "M_LIMIT_EXCEEDED"},
			"at the end":                   {ana, delayed(vouchedRequest, id), func(w *world) { w.leaves.failure = matrixrtc.ErrStopping }, 503, "M_UNKNOWN"},
			"not stored":                   {ana, delayed(vouchedRequest, id), func(w *world) { w.leaves.failure = errors.New("SECRET disk") }, 502, "M_UNKNOWN"},
			"the homeserver has none":      {ana, delayed(vouchedRequest, id), func(w *world) { w.leaves.off = true }, 404, "M_UNRECOGNIZED"},
			"switched off":                 {ana, delayed(vouchedRequest, id), func(w *world) { w.Reconfigure(config.Focus{TokenLifetime: time.Hour}) }, 404, "M_UNRECOGNIZED"},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorldWith(t, db, required)
				w.members.in = map[string]bool{"!roomid:example.com @ana:own.example": true}
				w.leaves.eventErr = matrixrtc.ErrEventHidden
				if c.prepare != nil {
					c.prepare(w)
				}
				status, body := w.hand(t, proxiedLeave, c.user, c.request)
				require.Equal(t, c.status, status, body)
				require.Contains(t, body, `"errcode":"`+c.code+`"`)
				require.NotContains(t, body, "SECRET")
				require.NotContains(t, body, "syd_x")
				require.Empty(t, w.leaves.got)
				require.Zero(t, count(t, db, "call_grant"))
			})
		}
	})
}

// TestALeaveIsNotForOtherServers: theirs have a homeserver of their own.
func TestALeaveIsNotForOtherServers(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		recorder := httptest.NewRecorder()
		w.ServeVouchedLeave(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/",
			strings.NewReader(delayed(federatedRequest, `"delay_id":"syd_x"`))), matrixrtc.Caller{Origin: "friend.example"})
		require.Equal(t, http.StatusForbidden, recorder.Code, recorder.Body)
		require.Empty(t, w.leaves.got)
		require.Empty(t, w.leaves.lookedUp)
	})
}

// TestGetTokenKeepsToItsFields: what is no field of get_token is not read.
func TestGetTokenKeepsToItsFields(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		status, body := w.hand(t, "/_matrix/client/v1/rtc/livekit/get_token", "@ana:own.example", delayed(vouchedRequest, `"delay_id":7,"delay_timeout":"x"`))
		require.Equal(t, http.StatusOK, status, body)
		require.Empty(t, w.leaves.got)
	})
}

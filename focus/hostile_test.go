package focus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

// An OpenID token is good for one room on one device: by either route, again
// and again. Used for anything else it is what a token is that nobody made.
func TestReplayedTokens(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		for _, same := range [][2]string{
			{"/sfu/get", legacyRequest}, {"/get_token", standaloneRequest}, {"/sfu/get", legacyRequest},
			{"/get_token", strings.Replace(standaloneRequest, `"id":"m"`, `"id":"joined again"`, 1)},
		} {
			status, body := w.ask(t, same[0], same[1])
			require.Equal(t, http.StatusOK, status, body)
		}
		rows, counted := count(t, db, "call_grant"), len(w.counted)
		w.failure = fmt.Errorf("not verified")
		_, refusal := w.ask(t, "/sfu/get", strings.Replace(legacyRequest, `"tok"`, `"bad"`, 1))
		w.failure = nil
		for name, c := range map[string]struct{ route, body, old, new string }{
			"another room, legacy": {"/sfu/get", legacyRequest, "!roomid", "!other"},
			"another room":         {"/get_token", standaloneRequest, "!roomid", "!other"},
			"another slot":         {"/get_token", standaloneRequest, "m.call#ROOM", "m.call#other"},
			"another device":       {"/get_token", standaloneRequest, "DEV", "EVIL"},
			"another device, less": {"/sfu/get", legacyRequest, `"DEV"`, `""`},
		} {
			status, body := w.ask(t, c.route, strings.Replace(c.body, c.old, c.new, 1))
			require.Equal(t, http.StatusUnauthorized, status, name)
			require.Equal(t, refusal, body, "%s: says no more than any other refusal", name)
		}
		require.Equal(t, rows, count(t, db, "call_grant"))
		for _, what := range w.counted[counted:] {
			require.NotContains(t, what, "user", "a stranger with a stolen token uses up nothing of its owner's")
		}
		status, body := w.ask(t, "/sfu/get", strings.NewReplacer(`"tok"`, `"fresh"`, "!roomid", "!other").Replace(legacyRequest))
		require.Equal(t, http.StatusOK, status, body)
	})
}

// Whoever asks for endless rooms, slots, members and devices has a bounded
// number of rows, and of rooms on the SFU.
func TestOneUserWithoutEnd(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		const most = 125
		w := newWorld(t, db)
		ask := func(n int, change ...string) int {
			body := strings.NewReplacer(append(change, `"tok"`, strconv.Quote("t"+strconv.Itoa(n)))...).Replace(standaloneRequest)
			status, _ := w.ask(t, "/get_token", body)
			return status
		}
		for n := range 150 {
			require.Equal(t, http.StatusOK, ask(n, `"id":"m"`, fmt.Sprintf(`"id":"m%d"`, n)))
			require.LessOrEqual(t, count(t, db, "call_grant"), most)
		}
		require.Len(t, w.ensured, 150, "one room, made again each time")

		started, refused := 0, 0
		for n := range 100 {
			switch ask(1000+n, "m.call#ROOM", "slot "+strconv.Itoa(n)) {
			case http.StatusOK:
				started++
			case http.StatusTooManyRequests:
				refused++
			}
		}
		require.Equal(t, 29, started, "and the one before")
		require.Equal(t, 71, refused)

		// Those who start nothing cost the SFU nothing, and leave no rows either.
		w.answer = "@bo:friend.example"
		for n := range 150 {
			require.Equal(t, http.StatusOK, ask(2000+n, "own.example", "friend.example", "@ana", "@bo", "!roomid", "!r"+strconv.Itoa(n)))
			require.LessOrEqual(t, count(t, db, "call_grant"), 2*most)
			require.LessOrEqual(t, count(t, db, "call_session"), most+1+started)
		}
		require.Len(t, w.ensured, 150+started)
	})
}

// Of one user's grants the oldest go first, but none with which somebody is
// connected.
func TestTheNewestGrantsStay(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		member := func(n int) matrixrtc.Identity {
			return matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "DEV", ID: strconv.Itoa(n)}.HashedIdentity()
		}
		at := time.Now()
		put := func(n int) {
			at = at.Add(time.Millisecond)
			_, err := w.store.PutGrant(t.Context(), focus.GrantRow{
				Grant: matrixrtc.Grant{Room: "room", Identity: member(n)}, Slot: matrixrtc.SlotKey{RoomID: "!r", SlotID: "s"},
				Member:     matrixrtc.Member{UserID: "@ana:own.example", DeviceID: "DEV", ID: strconv.Itoa(n)},
				Membership: "unverified", SFU: "embedded", ServerName: "own.example",
				Ensured: true, IssuedAt: at, ExpiresAt: at.Add(time.Hour),
			})
			require.NoError(t, err)
			require.NoError(t, w.store.TrimGrants(t.Context(), "@ana:own.example", time.Now()))
		}
		put(0)
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "1", Type: matrixrtc.ParticipantJoined,
			Room: "room", Identity: member(0), ParticipantSID: "PA_1", At: time.Now()}))
		for n := range 300 {
			put(n + 1)
		}
		passes := func(n int) error {
			return w.admit(t, matrixrtc.Ticket{Room: "room", Identity: member(n), Publish: matrixrtc.AllSources, MadeAt: at})
		}
		require.NoError(t, passes(0), "she is connected")
		for n := range 100 {
			require.NoError(t, passes(300-n))
		}
		require.ErrorIs(t, passes(1), focus.ErrNotAdmitted)
	})
}

// What one process gives while another clears up behind somebody else stays.
func TestAGrantGivenMeanwhileStays(t *testing.T) {
	db, err := migrations.Open(t.Context(), migrationstest.Postgres(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	w := newWorld(t, db)
	at := time.Now()
	for n := range 101 {
		room := matrixrtc.SFURoom("busy")
		if n == 0 {
			room = "left"
		}
		_, err := w.store.PutGrant(t.Context(), focus.GrantRow{
			Grant: matrixrtc.Grant{Room: room, Identity: matrixrtc.Identity(strconv.Itoa(n))},
			Slot:  matrixrtc.SlotKey{RoomID: id.RoomID("!" + room), SlotID: "s"}, Member: matrixrtc.Member{UserID: "@ana:own.example"},
			Membership: "unverified", SFU: "embedded", IssuedAt: at.Add(time.Duration(n) * time.Millisecond), ExpiresAt: at.Add(time.Hour),
		})
		require.NoError(t, err)
	}
	for range 24 {
		require.NoError(t, w.store.TrimGrants(t.Context(), "@ana:own.example", time.Now()))
	}
	other, err := db.RawDB.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = other.ExecContext(t.Context(), `INSERT INTO call_grant (sfu_room, identity, user_id, device_id, member_id, server_name, route,
		can_publish, may_create, issued_at, expires_at) VALUES ('left', 'bo', '@bo:own.example', '', '', '', '', true, true, 1, 2)`)
	require.NoError(t, err)
	trimmed := make(chan error, 1)
	go func() { trimmed <- w.store.TrimGrants(t.Context(), "@ana:own.example", time.Now()) }()
	require.Eventually(t, func() bool {
		var waiting int
		err := db.QueryRow(t.Context(), `SELECT COUNT(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
		return err == nil && waiting == 1
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, other.Commit())
	require.NoError(t, <-trimmed)
	standing, err := w.store.Standing(t.Context(), "left", "bo")
	require.NoError(t, err)
	require.True(t, standing.Living())
	require.Equal(t, 101, count(t, db, "call_grant"), "the oldest of the user's is gone")
}

// stuck is a Verifier that answers for no user of slow.example.
type stuck struct {
	asked   chan struct{} // gets a value for each question about slow.example
	release chan struct{}
}

func (s *stuck) Verify(ctx context.Context, token matrixrtc.OpenIDToken) (id.UserID, error) {
	if token.MatrixServerName != "slow.example" {
		return "@ana:own.example", nil
	}
	s.asked <- struct{}{}
	select {
	case <-s.release:
	case <-ctx.Done():
	}
	return "", context.DeadlineExceeded
}

// The users of a homeserver that does not answer fill what they may fill. One
// more of them is refused at once, and others do not notice.
func TestASlowServersUsersAndTheOthers(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		s := &stuck{asked: make(chan struct{}, 4096), release: make(chan struct{})}
		w := newWorldWith(t, db, func(o *focus.Options) { o.Verifier = s })
		w.access["slow.example"] = matrixrtc.Access{Join: true}
		slow := strings.ReplaceAll(legacyRequest, "own.example", "slow.example")
		const most = 4096 / 9
		var waiting sync.WaitGroup
		for range most {
			waiting.Go(func() {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sfu/get", strings.NewReader(slow))
				w.Serve(httptest.NewRecorder(), r, "/sfu/get")
			})
		}
		for range most {
			<-s.asked
		}
		recorder := httptest.NewRecorder()
		w.Serve(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sfu/get", strings.NewReader(slow)), "/sfu/get")
		require.Equal(t, http.StatusTooManyRequests, recorder.Code)
		require.Equal(t, "1", recorder.Header().Get("Retry-After"))
		var refusal struct {
			Code  string `json:"errcode"`
			Retry int    `json:"retry_after_ms"`
		}
		require.NoError(t, json.Unmarshal(recorder.Body.Bytes(), &refusal))
		require.Equal(t, "M_LIMIT_EXCEEDED", refusal.Code)
		require.Equal(t, 1000, refusal.Retry)
		require.Empty(t, s.asked, "it was not even asked about")

		status, body := w.ask(t, "/sfu/get", legacyRequest)
		require.Equal(t, http.StatusOK, status, body)
		close(s.release)
		waiting.Wait()
	})
}

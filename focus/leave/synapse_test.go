package leave_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/demo/parts/partstest"
	"passerelle/demo/synapse"
	"passerelle/focus/leave"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations"
)

const (
	asToken    = "3f0c9d1b8e5a4f7296c1d0e7ab54c8f23f0c9d1b"
	callMember = "org.matrix.msc3401.call.member"
	// asTokenOfAll is of a registration whose namespace holds everybody.
	asTokenOfAll = "b81f6a02d7c94e35a60c2f91e8d3b7546f0a1c2e"
)

// realHomeserver is a Synapse with its default limit on strangers, and staff.
type realHomeserver struct {
	*synapse.Server
	staff []*synapse.User
	room  id.RoomID
}

func startSynapse(t *testing.T, staff int) *realHomeserver {
	t.Helper()
	python := partstest.Synapse(t)
	authority, err := synapse.NewAuthority(t.TempDir())
	require.NoError(t, err)
	var ports []int
	for range 2 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
		require.NoError(t, listener.Close())
	}
	server, err := synapse.Start(t.Context(), synapse.Options{
		Python: python, Dir: t.TempDir(), Address: "127.0.0.1", ClientPort: ports[0], FederationPort: ports[1],
		Authority: authority, StrangersLimited: true,
		Registrations: []map[string]any{{
			"id": "focus", "url": nil, "as_token": asToken, "hs_token": "hs" + asToken, "sender_localpart": "_focus",
			"rate_limited": false, "namespaces": map[string]any{},
		}, {
			"id": "all", "url": nil, "as_token": asTokenOfAll, "hs_token": "hs" + asTokenOfAll, "sender_localpart": "_all",
			"rate_limited": false, "namespaces": map[string]any{"users": []any{map[string]any{"exclusive": false, "regex": "@.*"}}},
		}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	h := &realHomeserver{Server: server}
	var invited []id.UserID
	for i := range staff {
		user, err := server.Register(t.Context(), fmt.Sprintf("u%d", i), "")
		require.NoError(t, err)
		h.staff = append(h.staff, user)
		if i > 0 {
			invited = append(invited, user.UserID)
		}
	}
	h.room, err = h.staff[0].CreateCallRoom(t.Context(), "call", false, invited...)
	require.NoError(t, err)
	for _, user := range h.staff[1:] {
		require.NoError(t, user.JoinInvited(t.Context(), h.room, h.Name))
	}
	return h
}

// enter says that the user is in the call, and schedules that they are not.
func (h *realHomeserver) enter(t *testing.T, user *synapse.User, key string, delay time.Duration) matrixrtc.DelayID {
	t.Helper()
	path := mautrix.ClientURLPath{"v3", "rooms", h.room, "state", callMember, key}
	_, err := user.MakeRequest(t.Context(), http.MethodPut, user.BuildURL(path), map[string]any{"in": true}, nil)
	require.NoError(t, err)
	var scheduled struct {
		DelayID string `json:"delay_id"`
	}
	address := user.BuildURLWithQuery(path, map[string]string{"org.matrix.msc4140.delay": fmt.Sprint(delay.Milliseconds())})
	_, err = user.MakeRequest(t.Context(), http.MethodPut, address, struct{}{}, &scheduled)
	require.NoError(t, err)
	require.NotEmpty(t, scheduled.DelayID)
	return matrixrtc.DelayID(scheduled.DelayID)
}

// left counts how often each key's membership ended.
func (h *realHomeserver) left(t *testing.T) map[string]int {
	t.Helper()
	var answer struct {
		Chunk []struct {
			Type     string         `json:"type"`
			StateKey string         `json:"state_key"`
			Content  map[string]any `json:"content"`
		} `json:"chunk"`
	}
	user := h.staff[0]
	address := user.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", h.room, "messages"}, map[string]string{"dir": "b", "limit": "1000"})
	_, err := user.MakeRequest(t.Context(), http.MethodGet, address, nil, &answer)
	require.NoError(t, err)
	ended := map[string]int{}
	for _, e := range answer.Chunk {
		if e.Type == callMember && len(e.Content) == 0 {
			ended[e.StateKey]++
		}
	}
	return ended
}

// reach finds one homeserver.
type reach struct{ api leave.API }

// API implements leave.Homeservers.
func (r reach) API(context.Context, string) (leave.API, error) { return r.api, nil }

// Own implements leave.Homeservers.
func (r reach) Own() (leave.API, bool) { return r.api, true }

// attendance is an SFU that knows who is there.
type attendance struct {
	mu      sync.Mutex
	present map[matrixrtc.Identity]bool
}

func (a *attendance) set(who string, present bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.present[matrixrtc.Identity(who)] = present
}

// Participant implements leave.SFU.
func (a *attendance) Participant(_ context.Context, _ matrixrtc.SFURoom, who matrixrtc.Identity) (matrixrtc.Participant, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return matrixrtc.Participant{SID: "PA_" + string(who), Joined: true}, a.present[who], nil
}

// TestRealSynapse has a real Synapse count: leaves are put off for longer than
// their delay while everybody is there, and sent exactly once when they go.
func TestRealSynapse(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a minute and a half")
	}
	h := startSynapse(t, 12)
	for _, c := range []struct {
		name  string
		token config.Secret
		each  int // leaves of each user
		delay time.Duration
	}{
		// 12 leaves every 20 s are what a stranger is let do; 48 every 10 s are not.
		{"as a stranger", "", 1, 40 * time.Second},
		{"with the as_token", asToken, 4, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := h.takenOver(t, c.token)
			var keys []string
			for _, user := range h.staff {
				for n := range c.each {
					key := fmt.Sprintf("_%s_%s_%d", user.UserID, c.name, n)
					keys = append(keys, key)
					k.sfu.set(key, true)
					require.NoError(t, k.Delegate(t.Context(), matrixrtc.DelayedLeave{
						Room: room, Identity: matrixrtc.Identity(key), User: user.UserID, Server: h.Name,
						DelayID: h.enter(t, user, key, c.delay), Delay: c.delay,
					}))
				}
			}
			time.Sleep(c.delay * 3 / 2)
			before := h.left(t)
			for _, key := range keys {
				require.Zero(t, before[key], "put off while its participant is there")
			}
			began := time.Now()
			for i, key := range keys {
				k.sfu.set(key, false)
				event := matrixrtc.SFUEvent{Type: matrixrtc.ParticipantLeft, Room: room, At: time.Now(), Identity: matrixrtc.Identity(key),
					ParticipantSID: "PA_" + key, Reason: []string{"CLIENT_INITIATED", "CONNECTION_TIMEOUT"}[i%2]}
				k.SFUEvent(t.Context(), event)
				k.SFUEvent(t.Context(), event)
			}
			require.Eventually(t, func() bool { return storedLeaves(t, k.db) == 0 }, time.Minute, 20*time.Millisecond)
			t.Logf("%d leaves sent within %s", len(keys), time.Since(began).Round(time.Millisecond))
			time.Sleep(2 * time.Second)
			after := h.left(t)
			for _, key := range keys {
				require.Equal(t, 1, after[key], "sent exactly once")
			}
			require.Zero(t, refusals(t, k.registry), "no call was one too many")
		})
	}
}

// keeper is Leaves over a database of their own.
type keeper struct {
	*leave.Leaves
	sfu      *attendance
	db       *dbutil.Database
	registry *prometheus.Registry
}

// takenOver starts Leaves that manage delayed events at the homeserver.
func (h *realHomeserver) takenOver(t *testing.T, token config.Secret) *keeper {
	t.Helper()
	base, err := url.Parse(h.ClientURL)
	require.NoError(t, err)
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	k := &keeper{sfu: &attendance{present: map[matrixrtc.Identity]bool{}}, db: openSQLite(t), registry: prometheus.NewRegistry()}
	k.Leaves, err = leave.New(leave.Options{
		Store: leave.NewStore(k.db), Homeservers: reach{leave.API{URL: base, Token: token, Client: client}}, SFU: k.sfu,
		Log: zerolog.Nop(), Registerer: k.registry,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return k
}

func openSQLite(t *testing.T) *dbutil.Database {
	t.Helper()
	db, err := migrations.Open(t.Context(), migrations.Options{Type: migrations.SQLite, Path: t.TempDir() + "/p.db", MaxOpenConns: 4, Log: zerolog.Nop()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func storedLeaves(t *testing.T, db *dbutil.Database) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), "SELECT COUNT(*) FROM delayed_leave").Scan(&n))
	return n
}

// refusals counts calls that did not do what they were to.
func refusals(t *testing.T, registry *prometheus.Registry) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	found := errors.New("the metric is not there")
	for _, f := range families {
		if f.GetName() != "passerelle_leave_actions_total" {
			continue
		}
		found = nil
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() == "outcome" && label.GetValue() != "done" {
					t.Logf("%s", m)
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	require.NoError(t, found)
	return sum
}

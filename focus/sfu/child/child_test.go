package child_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"passerelle/focus/sfu"
	"passerelle/focus/sfu/child"
)

// TestSFUKilled kills the SFU while two send: they receive again in less than
// 5 s. Then it ends in order, and both are told.
func TestSFUKilled(t *testing.T) {
	hooks := newHooks(t)
	f := newFocus(t, t.TempDir(), fixed(t), hooks.server.URL)
	hooks.trust(f.Supervisor)
	f.open(t)
	first := f.diary.next(t)
	require.True(t, <-f.fresh)
	f.waitReady(t)
	a, b := join(t, f.Supervisor, 'a'), join(t, f.Supervisor, 'b')
	awaitBoth(t, 50, a, b)
	requireFrugal(t, first.PID, f.Supervisor)
	requireToldNothingElse(t, a.room)
	hooks.await(t, "track_published", 2)

	a.forget()
	b.forget()
	began := time.Now()
	hold(t, first.PID).signal(t, syscall.SIGKILL)
	second := f.diary.next(t)
	ready := time.Since(began)
	require.True(t, <-f.fresh)
	require.NotEqual(t, first.PID, second.PID)
	a.forget() // what was on its way
	b.forget()
	awaitBoth(t, 1, a, b)
	again := time.Since(began)
	t.Logf("kill -9 of the SFU: it is ready again after %v, both receive again after %v", ready, again)
	awaitBoth(t, 50, a, b)
	requireNothingWrong(t, a, b)

	began = time.Now()
	f.close(t)
	t.Logf("it ends in order in %v", time.Since(began))
	for _, c := range []*caller{a, b} {
		select {
		case reason := <-c.told:
			t.Logf("%c is told: %s", c.name, reason)
		case <-time.After(patience):
			require.FailNow(t, "nobody told the participant")
		}
	}
	for event, n := range map[string]int{"track_unpublished": 2, "participant_left": 2, "room_finished": 1} {
		require.Equal(t, n, hooks.count(event), "%s was not reported before the end", event)
	}
	f.quiet(t)
}

// TestParentKilled kills Passerelle while two send: media does not stop, and
// the next Passerelle takes the SFU over.
func TestParentKilled(t *testing.T) {
	dir, c := t.TempDir(), fixed(t)
	c.NodeIP = "" // the machine's own address, if it has one
	f := newFocus(t, dir, c, "")
	p := startParent(t, dir, c)
	pid := p.diary.next(t).PID
	sfuProcess := hold(t, pid)
	require.NoError(t, f.makeRoom(t.Context()))
	a, b := join(t, f.Supervisor, 'a'), join(t, f.Supervisor, 'b')
	awaitBoth(t, 50, a, b)
	a.forget()
	b.forget()

	p.kill(t)
	f.annoy(t, "eyJ.x.y") // LiveKit writes that down, where nobody reads
	awaitBoth(t, 75, a, b)
	f.open(t)
	adopted := f.diary.next(t)
	require.Equal(t, pid, adopted.PID)
	require.True(t, adopted.Adopted)
	require.False(t, <-f.fresh)
	awaitBoth(t, 125, a, b)
	for _, c := range []*caller{a, b} {
		count, worst := c.heard()
		t.Logf("kill -9 of Passerelle: %c received %d frames, none more than %v after the last", c.name, count, worst)
		require.Less(t, worst, 5*time.Second, "media stopped")
	}
	requireNothingWrong(t, a, b)
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	require.NoError(t, err)
	require.Equal(t, "passerelle-sfu\n", string(name))

	sfuProcess.signal(t, syscall.SIGHUP) // meant for the parent
	require.False(t, sfuProcess.ends(t, 100*time.Millisecond))
	f.close(t)
	require.True(t, sfuProcess.ends(t, 0))
	require.NoFileExists(t, filepath.Join(dir, "sfu.sock"))
}

// TestOrphan leaves the SFU alone: it ends by itself, and tells who is there.
func TestOrphan(t *testing.T) {
	dir, c := t.TempDir(), fixed(t)
	c.OrphanTimeout = time.Second
	f := newFocus(t, dir, c, "")
	p := startParent(t, dir, c)
	sfuProcess := hold(t, p.diary.next(t).PID)
	require.NoError(t, f.makeRoom(t.Context()))
	a := join(t, f.Supervisor, 'a')
	p.kill(t)
	began := time.Now()
	require.True(t, sfuProcess.ends(t, patience))
	require.Greater(t, time.Since(began), 900*time.Millisecond)
	t.Logf("an orphan ended after %v", time.Since(began))
	select {
	case <-a.told:
	case <-time.After(2 * time.Second):
		require.FailNow(t, "nobody told the participant")
	}
	require.NoFileExists(t, filepath.Join(dir, "sfu.sock"))
}

// TestNoRoomNoCall: joining makes no room.
func TestNoRoomNoCall(t *testing.T) {
	f := newFocus(t, t.TempDir(), fixed(t), "").open(t)
	f.diary.next(t)
	key, secret := f.Key()
	token, err := auth.NewAccessToken(key, secret.Reveal()).SetIdentity("a").
		SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: "another-call"}).SetValidFor(time.Minute).ToJWT()
	require.NoError(t, err)
	answer, err := http.Get(f.APIURL().JoinPath("/rtc/validate").String() + "?access_token=" + token)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusNotFound, answer.StatusCode)
}

// TestLog: what LiveKit complains of is logged, without the token it was about.
func TestLog(t *testing.T) {
	f := newFocus(t, t.TempDir(), fixed(t), "").open(t)
	f.diary.next(t)
	key, _ := f.Key()
	token, err := auth.NewAccessToken(key, strings.Repeat("wrong", 10)).SetIdentity("@a:example.org:DEVICE").
		SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: roomName}).SetValidFor(time.Minute).ToJWT()
	require.NoError(t, err)
	f.annoy(t, token)
	require.Eventually(t, func() bool { return f.diary.first("LiveKit reports a problem") != nil }, patience, 5*time.Millisecond)
	for _, l := range f.diary.all() {
		require.NotContains(t, l.raw, token)
		if l.Level != "debug" {
			require.NotContains(t, l.raw, "@a:example.org")
		}
	}
}

// TestSecondSignal: whoever presses is not made to wait for goodbyes.
func TestSecondSignal(t *testing.T) {
	f := newFocus(t, t.TempDir(), fixed(t), "").open(t)
	pressed := hold(t, f.diary.next(t).PID)
	f.waitReady(t)
	join(t, f.Supervisor, 'a')
	for !pressed.ends(t, 5*time.Millisecond) {
		_ = unix.PidfdSendSignal(pressed.fd, unix.SIGTERM, nil, 0)
	}
	f.diary.next(t) // it is started again
	reason := f.diary.first("The SFU says")
	require.NotNil(t, reason)
	require.Equal(t, "passerelle sfu: stopped at once by a second signal", reason.Line)
}

// TestPortTaken: the log says why the SFU does not start.
func TestPortTaken(t *testing.T) {
	busy := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(busy.Close)
	c := fixed(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(busy.URL, "http://"), ":")
	var err error
	c.Port, err = strconv.Atoi(port)
	require.NoError(t, err)
	f := newFocus(t, t.TempDir(), c, "").open(t)
	require.Eventually(t, func() bool { return f.diary.first("The SFU is started again") != nil }, patience, 10*time.Millisecond)
	reason := f.diary.first("The SFU says")
	require.NotNil(t, reason)
	require.Contains(t, reason.Line, "address already in use")
}

func TestMainWithoutAParent(t *testing.T) {
	for name, stdin := range map[string]string{"nothing": "", "no JSON": "port: 7880", "too much": strings.Repeat(" ", 1<<20)} {
		t.Run(name, func(t *testing.T) {
			var said bytes.Buffer
			require.Equal(t, 1, child.Main(strings.NewReader(stdin), &said))
			require.Regexp(t, `^passerelle sfu: read settings: .+\n$`, said.String())
		})
	}
}

// hooks receives LiveKit's webhooks.
type hooks struct {
	server *httptest.Server
	keys   auth.KeyProvider
	mu     sync.Mutex
	seen   map[string]int
}

func newHooks(t *testing.T) *hooks {
	t.Helper()
	h := &hooks{seen: map[string]int{}}
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		event, err := webhook.ReceiveWebhookEvent(r, h.keys)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		h.note(event)
	}))
	t.Cleanup(h.server.Close)
	return h
}

func (h *hooks) trust(s *sfu.Supervisor) {
	key, secret := s.Key()
	h.keys = auth.NewSimpleKeyProvider(key, secret.Reveal())
}

func (h *hooks) note(e *livekit.WebhookEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[e.GetEvent()]++
}

func (h *hooks) count(event string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[event]
}

func (h *hooks) await(t *testing.T, event string, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return h.count(event) >= n }, patience, 5*time.Millisecond, event)
}

// requireToldNothingElse: clients are told no STUN or TURN server of others.
func requireToldNothingElse(t *testing.T, room *lksdk.Room) {
	t.Helper()
	servers := room.LocalParticipant.GetSubscriberPeerConnection().GetConfiguration().ICEServers
	require.Len(t, servers, 1)
	require.Equal(t, []string{"stun:127.0.0.1:9"}, servers[0].URLs)
}

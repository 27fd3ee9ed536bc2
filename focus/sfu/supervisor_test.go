package sfu_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"passerelle/focus/sfu"
)

func TestStartAndStop(t *testing.T) {
	h := open(t, "well", nil)
	h.waitReady(t)
	require.True(t, <-h.fresh)
	pid := h.log.pid(t, 1)
	require.True(t, exists(pid))
	require.EqualValues(t, 1, h.metric(t, "passerelle_sfu_up", ""))
	require.EqualValues(t, 1, h.metric(t, "passerelle_sfu_start_duration_seconds", ""))
	session, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	require.NoError(t, err)
	fields := strings.Fields(string(session[strings.LastIndexByte(string(session), ')')+1:]))
	require.Equal(t, strconv.Itoa(pid), fields[3], "the child has no session of its own")

	h.close(t)
	require.False(t, exists(pid), "the child was not reaped")
	require.EqualValues(t, 0, h.metric(t, "passerelle_sfu_up", ""))
	require.EqualValues(t, 0, h.metric(t, "passerelle_sfu_restarts_total", "ended"))
	require.NoFileExists(t, filepath.Join(h.dir(), "sfu.sock"))
	found, _ := h.log.all("The SFU says")
	require.Len(t, found, 1)
	require.Equal(t, "signal 1", found[0]["line"])
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, h.WaitReady(expired), "not running yet")
}

func TestRestart(t *testing.T) {
	h := open(t, "well", nil)
	first := h.log.pid(t, 1)
	hold(t, first).kill(t)
	second := h.log.pid(t, 2)
	require.NotEqual(t, first, second)
	require.True(t, <-h.fresh)
	require.True(t, <-h.fresh)
	require.False(t, exists(first), "the dead child was not reaped")
	h.waitReady(t)
	require.EqualValues(t, 1, h.metric(t, "passerelle_sfu_restarts_total", "ended"))
	again := h.log.await(t, "The SFU is started again", 1)
	require.Contains(t, again["error"], "signal: killed")
	require.EqualValues(t, 0, again["pause_ms"], "a call waits for it")
}

// TestHang has the kernel take connections for an SFU that does nothing with
// them, and then somebody answer.
func TestHang(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	h := open(t, "well", func(o *sfu.Options) {
		o.Config.Port = listener.Addr().(*net.TCPAddr).Port
		o.HungAfter = 1500 * time.Millisecond
	})
	first := hold(t, h.log.pid(t, 1))
	require.Contains(t, h.log.await(t, "The SFU is started again", 1)["error"], "did not answer")
	first.gone(t, patience)
	require.EqualValues(t, 1, h.metric(t, "passerelle_sfu_restarts_total", "hung"))

	answered := make(chan struct{}, 1000)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable) // it is not well, but it lives
		answered <- struct{}{}
	})}
	serving := make(chan error, 1)
	go func() { serving <- server.Serve(listener) }()
	defer func() { _ = server.Close(); <-serving }()
	for range 4 {
		<-answered
	}
	before := h.metric(t, "passerelle_sfu_restarts_total", "hung")
	for range 4 {
		<-answered
	}
	require.Equal(t, before, h.metric(t, "passerelle_sfu_restarts_total", "hung"), "it was ended although it answered")
}

func TestAdoption(t *testing.T) {
	o := parentOptions{Dir: t.TempDir(), Mode: "chatty", Config: fixedPorts(t)}
	child, pid := lostParent(t, o)
	require.Eventually(t, func() bool { // its standard error is broken, and it lives
		_, err := os.Stat(filepath.Join(o.Dir, "unheard"))
		return err == nil
	}, patience, 10*time.Millisecond)

	h := open(t, "well", in(o))
	require.Equal(t, pid, h.log.pid(t, 1))
	require.Equal(t, true, h.log.await(t, "The SFU is ready", 1)["taken_over"])
	require.False(t, <-h.fresh)
	require.False(t, child.ends(t, 0))
	require.EqualValues(t, 0, h.metric(t, "passerelle_sfu_start_duration_seconds", ""), "nothing was started")

	child.kill(t)
	require.NotEqual(t, pid, h.log.pid(t, 2))
	require.True(t, <-h.fresh)
	require.EqualValues(t, 1, h.metric(t, "passerelle_sfu_restarts_total", "ended"))
}

// stopTimeout is short for those children that use it up.
func stopTimeout(mode string) time.Duration {
	if mode == "well" {
		return patience
	}
	return 300 * time.Millisecond
}

func TestStopOfAnAdoptedChild(t *testing.T) {
	for mode, stages := range map[string]int{"well": 0, "hard of hearing": 1, "deaf": 2} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			o := parentOptions{Dir: t.TempDir(), Mode: mode, Config: fixedPorts(t)}
			child, pid := lostParent(t, o)
			h := open(t, "well", func(s *sfu.Options) { in(o)(s); s.StopTimeout = stopTimeout(mode) })
			require.Equal(t, pid, h.log.pid(t, 1))
			h.close(t)
			child.gone(t, 0)
			late, _ := h.log.all("The SFU did not end in time")
			require.Len(t, late, stages)
		})
	}
}

func TestOtherSettings(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *sfu.Options){
		"configuration": func(_ *testing.T, o *sfu.Options) { o.Config.STUNServers = []string{"stun.example.org:3478"} },
		"webhook":       func(_ *testing.T, o *sfu.Options) { o.WebhookURL = "http://127.0.0.1:1/" },
		"key": func(t *testing.T, o *sfu.Options) {
			require.NoError(t, os.Remove(filepath.Join(o.DataDir, "livekit.key")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := parentOptions{Dir: t.TempDir(), Mode: "well", Config: fixedPorts(t)}
			child, pid := lostParent(t, o)
			h := open(t, "well", func(s *sfu.Options) { in(o)(s); change(t, s) })
			require.NotEqual(t, pid, h.log.pid(t, 1))
			require.True(t, <-h.fresh)
			child.gone(t, 0)
			require.EqualValues(t, 0, h.metric(t, "passerelle_sfu_restarts_total", "start_failed"))
		})
	}
}

func TestStranger(t *testing.T) {
	dir := t.TempDir()
	h := prepare(t, "speaks another language", func(o *sfu.Options) { o.DataDir = dir })
	// A start of such a child fails, since it is not understood.
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	require.Contains(t, h.log.await(t, "The SFU is started again", 1)["error"], "does not speak its language")
	cancel()
	require.NoError(t, <-ended)
	require.EqualValues(t, 0, h.metric(t, "passerelle_sfu_up", ""))
	require.GreaterOrEqual(t, h.metric(t, "passerelle_sfu_restarts_total", "start_failed"), 1.)
}

func TestStrangerIsReplaced(t *testing.T) {
	dir := t.TempDir()
	stranger := startStranger(t, dir)
	h := open(t, "well", func(o *sfu.Options) { o.DataDir = dir; o.StopTimeout = time.Second })
	h.waitReady(t)
	stranger.gone(t, 0)
}

func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "sfu.sock")})
	require.NoError(t, err)
	listener.SetUnlinkOnClose(false)
	require.NoError(t, listener.Close())
	h := open(t, "well", func(o *sfu.Options) { o.DataDir = dir })
	h.waitReady(t)
	require.True(t, <-h.fresh)
	info, err := os.Stat(filepath.Join(dir, "sfu.sock"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestDeepFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	h := open(t, "well", func(o *sfu.Options) { o.DataDir = dir })
	h.waitReady(t)
	require.FileExists(t, filepath.Join(dir, "sfu.sock"))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestTwoInOneFolder(t *testing.T) {
	h := open(t, "well", nil)
	h.waitReady(t)
	other := prepare(t, "well", func(o *sfu.Options) { o.DataDir = h.dir() })
	require.ErrorContains(t, other.Run(t.Context()), "another Passerelle uses "+h.dir())
	h.waitReady(t)
}

// TestFolderIsGone: as long as the SFU runs, nothing; then Passerelle ends, so
// that it is started anew with what is there.
func TestFolderIsGone(t *testing.T) {
	for name, anew := range map[string]bool{"moved": false, "made anew": true} {
		t.Run(name, func(t *testing.T) {
			h := prepare(t, "well", func(o *sfu.Options) { o.DataDir = filepath.Join(o.DataDir, "data") })
			ended := make(chan error, 1)
			go func() { ended <- h.Run(t.Context()) }()
			h.waitReady(t)
			child := hold(t, h.log.pid(t, 1))
			require.NoError(t, os.Rename(h.dir(), h.dir()+".moved"))
			if anew {
				require.NoError(t, os.Mkdir(h.dir(), 0o700))
			}
			h.waitReady(t)
			require.False(t, child.ends(t, 0))
			child.kill(t)
			require.ErrorContains(t, <-ended, "moved or removed")
		})
	}
}

func TestStopOrder(t *testing.T) {
	for mode, want := range map[string]struct {
		signals []any
		late    []any
		least   time.Duration
	}{
		"well":            {[]any{"signal 1"}, nil, 0},
		"hard of hearing": {[]any{"signal 1", "signal 2"}, []any{"terminated"}, 300 * time.Millisecond},
		"deaf":            {[]any{"signal 1", "signal 2"}, []any{"terminated", "terminated"}, 2300 * time.Millisecond},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := open(t, mode, func(o *sfu.Options) { o.StopTimeout = stopTimeout(mode) })
			h.waitReady(t)
			pid := h.log.pid(t, 1)
			began := time.Now()
			h.close(t)
			took := time.Since(began)
			require.False(t, exists(pid))
			require.GreaterOrEqual(t, took, want.least)
			var signals, late []any
			said, _ := h.log.all("The SFU says")
			for _, e := range said {
				signals = append(signals, e["line"])
			}
			warned, _ := h.log.all("The SFU did not end in time")
			for _, e := range warned {
				late = append(late, e["signal"])
			}
			require.Equal(t, want.signals, signals)
			require.Equal(t, want.late, late)
		})
	}
}

func TestNeverReady(t *testing.T) {
	h := open(t, "never ready", func(o *sfu.Options) { o.StartTimeout = 300 * time.Millisecond })
	require.Contains(t, h.log.await(t, "The SFU is started again", 1)["error"], "takes too long")
	require.EqualValues(t, 0, h.metric(t, "passerelle_sfu_up", ""))
	require.Empty(t, h.fresh)
}

func TestStoppedWhileItStarts(t *testing.T) {
	h := open(t, "never ready", nil)
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(h.dir(), "sfu.sock"))
		return err == nil
	}, patience, time.Millisecond)
	h.close(t)
	require.NoFileExists(t, filepath.Join(h.dir(), "sfu.sock"))
}

func TestDiesAtOnce(t *testing.T) {
	h := open(t, "dies at once", nil)
	h.log.await(t, "The SFU is started again", 3)
	require.Equal(t, "panic: nothing works", h.log.await(t, "The SFU says", 1)["line"])
	entries, _ := h.log.all("The SFU is started again")
	require.Contains(t, entries[0]["error"], "exit status 3")
	pauses := []any{entries[0]["pause_ms"], entries[1]["pause_ms"], entries[2]["pause_ms"]}
	require.Equal(t, []any{0., 100., 200.}, pauses)
	require.GreaterOrEqual(t, h.metric(t, "passerelle_sfu_restarts_total", "start_failed"), 3.)
}

func TestLastWords(t *testing.T) {
	h := open(t, "fails slowly", nil)
	h.log.await(t, "The SFU is started again", 1)
	require.Equal(t, "the port is taken", h.log.await(t, "The SFU says", 1)["line"])
	h.close(t)
	said, _ := h.log.all("The SFU says")
	again, _ := h.log.all("The SFU is started again")
	require.GreaterOrEqual(t, len(said), len(again))
}

func TestNoSuchExecutable(t *testing.T) {
	h := open(t, "well", func(o *sfu.Options) { o.Executable = "/nonexistent" })
	require.Contains(t, h.log.await(t, "The SFU is started again", 1)["error"], "no such file")
}

func TestOrphan(t *testing.T) {
	o := parentOptions{Dir: t.TempDir(), Mode: "well", Config: fixedPorts(t)}
	o.Config.OrphanTimeout = 300 * time.Millisecond
	child, _ := lostParent(t, o)
	require.False(t, child.ends(t, 100*time.Millisecond), "it did not wait")
	child.gone(t, patience)
	require.NoFileExists(t, filepath.Join(o.Dir, "sfu.sock"))
}

func TestOnReady(t *testing.T) {
	t.Run("before anybody else", func(t *testing.T) {
		called := make(chan struct{})
		proceed := make(chan struct{})
		h := open(t, "well", func(o *sfu.Options) {
			o.OnReady = func(context.Context, bool) error { close(called); <-proceed; return nil }
		})
		<-called
		expired, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, h.WaitReady(expired))
		close(proceed)
		h.waitReady(t)
		require.NoError(t, h.WaitReady(expired), "ready is ready")
	})
	t.Run("ends with the child", func(t *testing.T) {
		called := make(chan struct{}, 2)
		h := open(t, "well", func(o *sfu.Options) {
			o.OnReady = func(ctx context.Context, _ bool) error {
				called <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}
		})
		<-called
		hold(t, h.log.pid(t, 1)).kill(t)
		<-called
		h.log.await(t, "What follows the SFU's start was not done", 1)
	})
}

func TestOptions(t *testing.T) {
	good := sfu.Options{Config: embedded(), DataDir: t.TempDir(), Registerer: prometheus.NewRegistry()}
	for name, change := range map[string]func(*sfu.Options){
		"no registerer":     func(o *sfu.Options) { o.Registerer = nil },
		"no folder":         func(o *sfu.Options) { o.DataDir = "" },
		"no orphan timeout": func(o *sfu.Options) { o.Config.OrphanTimeout = 0 },
		"a file as folder":  func(o *sfu.Options) { o.DataDir = os.Args[0] },
		"endless list":      func(o *sfu.Options) { o.Config.STUNServers = []string{strings.Repeat("x", 40<<10)} },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			change(&o)
			_, err := sfu.New(o)
			require.Error(t, err)
		})
	}
	s, err := sfu.New(good)
	require.NoError(t, err)
	require.Regexp(t, `^http://127\.0\.0\.1:[1-9][0-9]+$`, s.APIURL().String())
}

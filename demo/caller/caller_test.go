package caller_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/demo/caller"
	"passerelle/demo/parts/partstest"
)

const (
	startTimeout = 2 * time.Minute
	liveTimeout  = time.Minute
	// notLive is more than a good call takes to be believed.
	notLive = 6 * time.Second
)

func options(t *testing.T, chromium, url string) caller.Options {
	return caller.Options{
		Chromium: chromium, URL: url, Dir: t.TempDir(), Name: "agnes", Tone: 700, Hears: 700,
		Log: zerolog.New(zerolog.NewTestWriter(t)),
	}
}

func start(t *testing.T, opts caller.Options) *caller.Caller {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c, err := caller.Start(ctx, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func pages(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.FileServer(http.Dir("testdata")))
	t.Cleanup(server.Close)
	return server.URL + "/page.html"
}

func TestCallerSeesHearsAndLeaves(t *testing.T) {
	opts := options(t, partstest.Chromium(t), pages(t))
	c := start(t, opts)
	ctx, cancel := context.WithTimeout(t.Context(), liveTimeout)
	defer cancel()

	media, err := c.WaitLive(ctx)
	require.NoError(t, err)
	require.GreaterOrEqual(t, media.Frames, 10)
	require.GreaterOrEqual(t, media.Images, 4)
	require.Positive(t, media.Width)
	require.Positive(t, media.Height)
	require.Positive(t, media.Energy)
	require.InDelta(t, opts.Tone, media.PeakHz, 12)
	require.False(t, media.Encrypted)

	users, err := c.InCall(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"@agnes:a.test", "@bruno:b.test"}, users)

	shown, err := c.Shown(ctx)
	require.NoError(t, err)
	require.Equal(t, "joined: Agnès Bruno | in the frame: Waiting for media Leave", shown)

	console := strings.Join(c.Console(), "\n")
	for _, line := range []string{"the page {has: ", "warning: the frame", "nobody catches this"} {
		require.Contains(t, console, line)
	}

	file := filepath.Join(t.TempDir(), "call.png")
	require.NoError(t, c.Screenshot(ctx, file))
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	picture, err := png.Decode(bytes.NewReader(content))
	require.NoError(t, err)
	require.Greater(t, picture.Bounds().Dx(), 1000)

	_, err = c.HangUp(ctx)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "a second time")
	require.Empty(t, browsers(t, opts.Dir))
	left, err := os.ReadDir(opts.Dir)
	require.NoError(t, err)
	require.Empty(t, left, "its files are gone")
}

func TestCallerKnowsAnEncryptedCall(t *testing.T) {
	c := start(t, options(t, partstest.Chromium(t), pages(t)+"?sealed"))
	ctx, cancel := context.WithTimeout(t.Context(), liveTimeout)
	defer cancel()
	media, err := c.WaitLive(ctx)
	require.NoError(t, err)
	require.True(t, media.Encrypted)
}

// What looks like a call and is none must not be taken for one.
func TestCallerIsNotFooled(t *testing.T) {
	chromium, base := partstest.Chromium(t), pages(t)
	for name, test := range map[string]struct {
		query string
		hears int
		check func(*testing.T, caller.Media)
	}{
		"only its own picture and voice": {"?alone", 700, func(t *testing.T, m caller.Media) {
			require.Equal(t, caller.Media{}, m)
		}},
		"a picture that does not change": {"?still", 700, func(t *testing.T, m caller.Media) {
			require.Greater(t, m.Frames, 10)
			require.LessOrEqual(t, m.Images, 2)
			require.InDelta(t, 700, m.PeakHz, 12)
		}},
		"no voice": {"?mute", 0, func(t *testing.T, m caller.Media) {
			require.Greater(t, m.Images, 4)
			require.Zero(t, m.Energy)
		}},
		"a voice that arrives and is not played": {"?muted", 0, func(t *testing.T, m caller.Media) {
			require.Greater(t, m.Images, 4)
			require.Zero(t, m.PeakHz)
		}},
		"somebody else's voice": {"", 1500, func(t *testing.T, m caller.Media) {
			require.Greater(t, m.Images, 4)
			require.InDelta(t, 700, m.PeakHz, 12)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := options(t, chromium, base+test.query)
			opts.Hears = test.hears
			c := start(t, opts)
			ctx, cancel := context.WithTimeout(t.Context(), notLive)
			defer cancel()
			media, err := c.WaitLive(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "the page shows: joined: Agnès Bruno | in the frame: Waiting for media Leave")
			require.ErrorContains(t, err, "nobody catches this")
			test.check(t, media)
		})
	}
}

func TestKillEndsTheBrowserAtOnce(t *testing.T) {
	opts := options(t, partstest.Chromium(t), pages(t))
	c := start(t, opts)
	require.NotEmpty(t, browsers(t, opts.Dir))
	sockets, err := filepath.Glob(filepath.Join(opts.Dir, "*", "profile", "SingletonSocket"))
	require.NoError(t, err)
	require.Len(t, sockets, 1)
	socket, err := os.Readlink(sockets[0])
	require.NoError(t, err)
	waiting := make(chan error, 1)
	go func() {
		_, err := c.WaitLive(t.Context())
		waiting <- err
	}()
	c.Kill()
	require.Eventually(t, func() bool { return len(browsers(t, opts.Dir)) == 0 }, time.Minute, 20*time.Millisecond)
	require.ErrorIs(t, <-waiting, caller.ErrGone)
	_, err = c.InCall(t.Context())
	require.ErrorIs(t, err, caller.ErrGone)
	_, err = c.HangUp(t.Context())
	require.ErrorIs(t, err, caller.ErrGone)
	require.ErrorIs(t, c.Screenshot(t.Context(), filepath.Join(t.TempDir(), "none.png")), caller.ErrGone)
	require.NoError(t, c.Close())
	require.NoDirExists(t, filepath.Dir(socket), "nothing is left beside the browser's folder")
}

const childVariable = "CALLER_TEST_CHILD"

// TestBrowserDiesWithUs runs this test again as a child, which is killed while
// its browser runs.
func TestBrowserDiesWithUs(t *testing.T) {
	if dir := os.Getenv(childVariable); dir != "" {
		opts := options(t, partstest.Chromium(t), "about:blank")
		opts.Dir = dir
		start(t, opts)
		fmt.Println("\nstarted")
		<-t.Context().Done()
		return
	}
	partstest.Chromium(t)
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrowserDiesWithUs$")
	child.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "started" {
	}
	require.Equal(t, "started", lines.Text())
	require.NotEmpty(t, browsers(t, dir))
	require.NoError(t, child.Process.Kill())
	_ = child.Wait()
	require.Eventually(t, func() bool { return len(browsers(t, dir)) == 0 }, time.Minute, 20*time.Millisecond)
}

func TestStartFails(t *testing.T) {
	for name, test := range map[string]struct {
		script string // in place of the browser; empty is a file that is not there
		tone   int
		within time.Duration
		want   string
	}{
		"no such program":            {"", 440, startTimeout, "starting the browser"},
		"it ends by itself":          {"echo cannot open display >&2; exit 3", 440, startTimeout, "cannot open display"},
		"it says nothing":            {"exec sleep 600", 440, time.Second, "waiting for the browser"},
		"what it says is no address": {"echo DevTools listening on ws://127.0.0.1:1/x >&2; exec sleep 600", 440, startTimeout, "opening a tab"},
		"a tone nobody can hear":     {"exit", 20_000, startTimeout, "20000 Hz"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(t.TempDir(), "browser")
			if test.script != "" {
				require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"+test.script+"\n"), 0o755))
			}
			opts := options(t, program, "about:blank")
			opts.Tone = test.tone
			ctx, cancel := context.WithTimeout(t.Context(), test.within)
			defer cancel()
			_, err := caller.Start(ctx, opts)
			require.ErrorContains(t, err, "caller agnes: ")
			require.ErrorContains(t, err, test.want)
			require.Empty(t, browsers(t, opts.Dir))
			left, err := os.ReadDir(opts.Dir)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// browsers lists the living processes that were started for dir.
func browsers(t *testing.T, dir string) (pids []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range lines {
		command, err := os.ReadFile(file)
		if err == nil && bytes.Contains(command, []byte("--user-data-dir="+dir)) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

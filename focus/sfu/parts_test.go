package sfu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// TestBackoff sees the pauses between starts, of children that die at once and
// of one that was stable for a while.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Supervisor{metrics: newMetrics(prometheus.NewRegistry()), log: zerolog.Nop()}
		ctx, cancel := context.WithCancel(t.Context())
		var pauses []time.Duration
		last := time.Now()
		_ = s.keep(ctx, func(context.Context) error {
			pauses = append(pauses, time.Since(last))
			defer func() { last = time.Now() }()
			switch len(pauses) {
			case 12:
				time.Sleep(stableAfter + time.Second)
			case 14:
				cancel()
			}
			return errors.New("no")
		})
		want := []time.Duration{0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 0, 100}
		require.Len(t, pauses, len(want))
		exact := 0
		for i, w := range want {
			w *= time.Millisecond
			require.InDelta(t, w, pauses[i], float64(w)/4, "pause %d", i)
			if w > 0 && pauses[i] == w {
				exact++
			}
		}
		require.Less(t, exact, 5, "no jitter")
	})
}

func TestPauseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		pause(ctx, time.Hour)
		require.Equal(t, time.Second, time.Since(began))
	})
}

func TestChooseAddress(t *testing.T) {
	for name, c := range map[string]struct {
		all      string
		loopback bool
		want     string
		err      error
	}{
		"first of several":       {"127.0.0.1 ::1 192.0.2.7 10.0.0.1", false, "192.0.2.7", nil},
		"IPv4 before IPv6":       {"2001:db8::7 192.0.2.7", false, "192.0.2.7", nil},
		"IPv6 alone":             {"fe80::1 2001:db8::7", false, "2001:db8::7", nil},
		"no link-local":          {"169.254.1.1 fe80::1", false, "", errNoAddress},
		"nothing":                {"", false, "", errNoAddress},
		"loopback alone":         {"127.0.0.1 ::1", false, "", errNoAddress},
		"loopback for a trial":   {"127.0.0.1 ::1", true, "127.0.0.1", nil},
		"trial with an address":  {"127.0.0.1 192.0.2.7", true, "192.0.2.7", nil},
		"neither zero nor group": {"0.0.0.0 224.0.0.1 255.255.255.255", false, "", errNoAddress},
	} {
		t.Run(name, func(t *testing.T) {
			var all []netip.Addr
			for _, a := range strings.Fields(c.all) {
				all = append(all, netip.MustParseAddr(a))
			}
			got, err := chooseAddress(all, c.loopback)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{
		"PATH=/bin", "GOMEMLIMIT=1GiB", "GODEBUG=x=1", "TZ=Europe/Paris", "HTTP_PROXY=http://proxy.example.org",
		"PASSERELLE_DATABASE_URI=postgres://u:p@h/d", "LIVEKIT_SECRET=s", "HOME=/root",
	})
	require.Equal(t, []string{"GOMEMLIMIT=1GiB", "GODEBUG=x=1", "TZ=Europe/Paris"}, got)
}

func TestRelay(t *testing.T) {
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJAYTpiIn0.c2lnbmF0dXJl"
	for name, c := range map[string]struct{ line, want string }{
		"a warning": {
			`{"level":"warn","ts":"x","logger":"livekit","msg":"slow","error":"late","participant":"@a:example.org:DEV","remote":"192.0.2.1"}`,
			`{"level":"warn","logger":"livekit","said":"slow","error":"late","message":"LiveKit reports a problem"}`,
		},
		"an error with a person in it": {
			`{"level":"error","logger":"livekit","msg":"no @agent.x:example.org:8448","error":"@a:b"}`,
			`{"level":"warn","logger":"livekit","said":"no <user>","error":"<user>","message":"LiveKit reports a problem"}`,
		},
		"information": {`{"level":"info","msg":"started"}`, ""},
		"a token": {
			`{"level":"warn","msg":"bad ` + jwt + `"}`,
			`{"level":"warn","logger":"","said":"bad <token>","message":"LiveKit reports a problem"}`,
		},
		"a panic": {
			"panic: runtime error: @a:example.org " + jwt,
			`{"level":"warn","line":"panic: runtime error: <user> <token>","message":"The SFU says"}`,
		},
		"other JSON":  {`{"a":1}`, `{"level":"warn","line":"{\"a\":1}","message":"The SFU says"}`},
		"no text":     {"\xff\x00", `{"level":"warn","line":"?\u0000","message":"The SFU says"}`},
		"a long line": {strings.Repeat("x", 3*maxLogLine), `{"level":"warn","line":"` + strings.Repeat("x", maxLogLine) + `","message":"The SFU says"}`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			log := zerolog.New(&out).Level(zerolog.InfoLevel)
			relay(bufio.NewReaderSize(strings.NewReader(c.line+"\nlast\n"), maxLogLine), log)
			want := `{"level":"warn","line":"last","message":"The SFU says"}` + "\n"
			if c.want != "" {
				want = c.want + "\n" + want
			}
			require.Equal(t, want, out.String())
		})
	}
	t.Run("everything for debugging", func(t *testing.T) {
		var out bytes.Buffer
		report(`{"level":"info","msg":"started","participant":"p"}`, zerolog.New(&out))
		require.JSONEq(t, `{"level":"debug","livekit":{"level":"info","msg":"started","participant":"p"},"message":"LiveKit's log"}`, out.String())
	})
}

func FuzzReport(f *testing.F) {
	f.Add(`{"level":"warn","msg":"x","error":"@a:b"}`)
	f.Add(`{"level":3}`)
	f.Add("goroutine 1 [running]:")
	f.Fuzz(func(t *testing.T, line string) {
		var out bytes.Buffer
		relay(bufio.NewReaderSize(strings.NewReader(line), 64), zerolog.New(&out))
		for entry := range bytes.Lines(out.Bytes()) {
			require.True(t, json.Valid(entry), "%q", entry)
			require.False(t, token.Match(entry), "%q", entry)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"protocol":1,"pid":7,"fingerprint":"x","ready":true}` + "\n"))
	f.Add([]byte(`{"protocol":2,"pid":7}` + "\n"))
	f.Add([]byte("220 mail.example.org ESMTP\r\n"))
	f.Add(bytes.Repeat([]byte("x"), 2*maxLine))
	f.Fuzz(func(t *testing.T, said []byte) {
		h, err := readHello(bufio.NewReaderSize(bytes.NewReader(said), maxLine))
		if err == nil && (h.PID <= 0 || h.Protocol != protocol || !bytes.Contains(said[:min(len(said), maxLine)], []byte("\n"))) {
			t.Fatalf("accepted %q", said)
		}
	})
}

func TestHello(t *testing.T) {
	for name, c := range map[string]struct {
		said string
		want error
	}{
		"good":          {`{"protocol":1,"pid":7}`, nil},
		"other version": {`{"protocol":2,"pid":7}`, errLanguage},
		"no process":    {`{"protocol":1,"pid":0}`, errLanguage},
		"no JSON":       {"hello", errLanguage},
		"endless":       {strings.Repeat(" ", 2*maxLine), errLanguage},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readHello(bufio.NewReaderSize(strings.NewReader(c.said+"\n"), maxLine))
			require.ErrorIs(t, err, c.want)
		})
	}
}

func TestKey(t *testing.T) {
	dir := t.TempDir()
	first, err := loadKey(dir)
	require.NoError(t, err)
	require.Regexp(t, `^passerelle-[0-9a-f]{8}$`, first.id)
	require.Regexp(t, `^[0-9a-f]{64}$`, first.secret)
	again, err := loadKey(dir)
	require.NoError(t, err)
	require.Equal(t, first, again)
	other, err := loadKey(t.TempDir())
	require.NoError(t, err)
	require.NotEqual(t, first, other)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	info, err := entries[0].Info()
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"empty":    {"", 0o600, "damaged"},
		"half":     {"id: ", 0o600, "damaged"},
		"short":    {"id: short", 0o600, "damaged"},
		"two":      {"a: " + first.secret + "\nb: " + first.secret, 0o600, "damaged"},
		"open":     {"a: " + first.secret, 0o640, "chmod 600"},
		"too much": {strings.Repeat("x", 2*maxKeyFile), 0o600, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(dir+"/"+keyFile, []byte(c.content), c.mode))
			require.NoError(t, os.Chmod(dir+"/"+keyFile, c.mode))
			_, err := loadKey(dir)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), first.secret)
		})
	}
	t.Run("another one makes it", func(t *testing.T) {
		dir := t.TempDir()
		lock, err := lockFolder(dir)
		require.NoError(t, err)
		defer lock.unlock()
		_, err = loadKey(dir)
		require.ErrorContains(t, err, "another Passerelle uses")
	})
}

package sfu_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/sfu"
)

// serveControl runs the child's end in this process.
func serveControl(t *testing.T, orphan time.Duration) (*sfu.Control, sfu.Settings) {
	t.Helper()
	s := settings()
	s.Dir, s.OrphanTimeout = t.TempDir(), orphan
	c, err := sfu.NewControl(s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() { defer close(served); c.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-served:
		case <-time.After(patience):
			t.Error("Serve does not return")
		}
		require.NoFileExists(t, filepath.Join(s.Dir, "sfu.sock"))
	})
	return c, s
}

func dial(t *testing.T, s sfu.Settings) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(s.Dir, "sfu.sock"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn, bufio.NewReader(conn)
}

func TestHelloTwice(t *testing.T) {
	c, s := serveControl(t, time.Minute)
	_, lines := dial(t, s)
	first, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, first, `"fingerprint":"`+s.Fingerprint()+`"`)
	require.Contains(t, first, `"ready":false`)
	require.NotContains(t, first, "s3cret")
	c.Ready()
	second, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, strings.Replace(first, `"ready":false`, `"ready":true`, 1), second)
}

func TestGarbageOnTheSocket(t *testing.T) {
	c, s := serveControl(t, time.Minute)
	c.Ready()
	conn, lines := dial(t, s)
	for range 64 {
		_, err := conn.Write([]byte(strings.Repeat("\x00{[", 16<<10)))
		require.NoError(t, err)
	}
	_, err := lines.ReadString('\n')
	require.NoError(t, err)
	_, other := dial(t, s)
	_, err = other.ReadString('\n')
	require.NoError(t, err)
}

func TestTooManyLeashes(t *testing.T) {
	_, s := serveControl(t, time.Minute)
	for range 8 {
		_, lines := dial(t, s)
		_, err := lines.ReadString('\n')
		require.NoError(t, err)
	}
	_, lines := dial(t, s)
	_, err := lines.ReadString('\n')
	require.ErrorIs(t, err, io.EOF)
}

func TestOrphaned(t *testing.T) {
	const orphan = 100 * time.Millisecond
	c, s := serveControl(t, orphan)
	first, lines := dial(t, s)
	_, err := lines.ReadString('\n')
	require.NoError(t, err)
	second, lines := dial(t, s)
	_, err = lines.ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, first.Close())
	select {
	case <-c.Orphaned():
		require.FailNow(t, "there is a leash")
	case <-time.After(3 * orphan):
	}
	began := time.Now()
	require.NoError(t, second.Close())
	select {
	case <-c.Orphaned():
		require.GreaterOrEqual(t, time.Since(began), orphan)
	case <-time.After(patience):
		require.FailNow(t, "not orphaned")
	}
}

func TestNeverLeashed(t *testing.T) {
	c, _ := serveControl(t, 50*time.Millisecond)
	select {
	case <-c.Orphaned():
	case <-time.After(patience):
		require.FailNow(t, "not orphaned")
	}
}

func TestTwoControls(t *testing.T) {
	_, s := serveControl(t, time.Minute)
	_, err := sfu.NewControl(s)
	require.ErrorContains(t, err, "another SFU runs in this folder")
	s.Dir = filepath.Join(s.Dir, "nowhere")
	_, err = sfu.NewControl(s)
	require.ErrorContains(t, err, "no such file")
}

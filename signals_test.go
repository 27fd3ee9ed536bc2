package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// silentDatabase accepts connections and never answers. accepted tells of the
// first.
func silentDatabase(t *testing.T) (address string, accepted <-chan net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	first := make(chan net.Conn, 1)
	go func() {
		if conn, err := listener.Accept(); err == nil {
			first <- conn
		}
	}()
	return listener.Addr().String(), first
}

// TestStopWhileItStarts: a start that waits for its database is given up at
// the first SIGTERM, which a storm of SIGHUPs does not drown.
func TestStopWhileItStarts(t *testing.T) {
	database, accepted := silentDatabase(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
server: {listen: "127.0.0.1:0", private_listen: "127.0.0.1:0", public_url: "https://rtc.example.org", data_dir: %q}
database: {type: postgres, uri: "postgres://p:hunter2@%s/p?sslmode=disable"}
focus: {membership: unverified}
`, dir, database), 0o600))
	self, err := os.Executable()
	require.NoError(t, err)
	var said bytes.Buffer
	command := exec.Command(self, "-config", file)
	command.Args[0], command.Stderr = "passerelle", &said
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill() })

	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case conn := <-accepted:
		defer conn.Close()
	case err := <-ended:
		require.FailNow(t, "it did not come as far as its database", "%v\n%s", err, &said)
	}
	for range 100 {
		require.NoError(t, command.Process.Signal(syscall.SIGHUP))
	}
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended, "exit code 0\n%s", &said)
	require.Contains(t, said.String(), "Passerelle has stopped before it had started")
	require.NotContains(t, said.String(), "hunter2")
}

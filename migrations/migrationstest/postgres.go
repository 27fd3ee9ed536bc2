package migrationstest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/demo/parts/partstest"
)

// The server is started by the first test of a binary that needs it and ends
// with the binary: it gets SIGTERM when its parent is gone, however that went.
var (
	startOnce  sync.Once
	startError error
	serverURI  func(database string) string
	databases  atomic.Int32
)

// freshPostgres returns the connection string of a new, empty database.
func freshPostgres(t *testing.T) string {
	t.Helper()
	binaries := partstest.Postgres(t)
	startOnce.Do(func() { startError = startPostgres(binaries) })
	require.NoError(t, startError)
	name := fmt.Sprintf("test%d", databases.Add(1))
	admin, err := sql.Open("postgres", serverURI("postgres"))
	require.NoError(t, err)
	defer admin.Close()
	_, err = admin.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return serverURI(name)
}

func startPostgres(binaries string) error {
	dir, err := os.MkdirTemp("", "passerelle-postgres-")
	if err != nil {
		return err
	}
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root.
		if attributes.Credential, err = nobody(dir); err != nil {
			return err
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(binaries, name), args...)
		c.Dir = dir
		c.SysProcAttr = attributes
		return c
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	serverURI = func(database string) string {
		return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", port, database)
	}
	server := command("postgres", "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-k", dir,
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	// A shell in between removes the folder when the server has ended.
	server.Args = append([]string{"sh", "-c", keeper, dir, server.Path}, server.Args[1:]...)
	server.Path = "/bin/sh"
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		return err
	}
	return awaitPostgres(log.Name())
}

// keeper runs the command in its arguments until it is told to end, and then
// removes the folder $0. SIGINT is PostgreSQL's fast shutdown.
const keeper = `trap 'kill -INT $server' TERM
"$@" & server=$!
wait $server; wait $server
rm -rf "$0"`

func awaitPostgres(log string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	db, err := sql.Open("postgres", serverURI("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log)
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, said)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// nobody gives dir to the user nobody and returns its credential.
func nobody(dir string) (*syscall.Credential, error) {
	account, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(account.Gid)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, uid, gid)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

package migrationstest

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/demo/parts/partstest"
)

// shared is the one server of this test binary.
var shared struct {
	sync.Mutex

	started   bool
	err       error
	server    server
	databases int
}

// server is a running PostgreSQL. It listens on a socket in its own folder and
// on no port.
type server struct {
	dir string
	// alive is open as long as the test binary lives, however that ends. The
	// keeper at its other end then stops the server and removes the folder.
	alive io.WriteCloser
}

func (s server) uri(database string) string {
	return fmt.Sprintf("postgres:///%s?host=%s&user=postgres&sslmode=disable", database, s.dir)
}

// freshPostgres returns the connection string of a new, empty database. The
// first call starts the server.
func freshPostgres(t *testing.T) string {
	t.Helper()
	programs := partstest.Postgres(t)
	shared.Lock()
	defer shared.Unlock()
	if !shared.started {
		shared.started = true
		shared.server, shared.err = startPostgres(programs)
	}
	require.NoError(t, shared.err)
	shared.databases++
	name := "test" + strconv.Itoa(shared.databases)
	admin, err := sql.Open("postgres", shared.server.uri("postgres"))
	require.NoError(t, err)
	defer func() { require.NoError(t, admin.Close()) }()
	_, err = admin.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return shared.server.uri(name)
}

// keeper runs the command in its arguments until its standard input ends, and
// then removes the folder $0. SIGINT is PostgreSQL's fast shutdown.
const keeper = `"$@" & server=$!
read -r _
kill -INT $server
wait $server
cd / && rm -rf "$0"`

func startPostgres(programs string) (server, error) {
	dir, err := os.MkdirTemp("", "passerelle-postgres-")
	if err != nil {
		return server{}, err
	}
	started, err := startIn(dir, programs)
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return started, err
}

func startIn(dir, programs string) (server, error) {
	// A group of its own: a Ctrl-C in the terminal must not end the keeper
	// before it has cleaned up.
	attributes := &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root.
		var err error
		if attributes.Credential, err = nobody(dir); err != nil {
			return server{}, err
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(name, args...)
		c.Dir = dir
		c.SysProcAttr = attributes
		return c
	}
	data := filepath.Join(dir, "data")
	out, err := command(filepath.Join(programs, "initdb"), "-D", data, "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	if err != nil {
		return server{}, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return server{}, err
	}
	defer func() { _ = log.Close() }()
	run := command("/bin/sh", "-c", keeper, dir, filepath.Join(programs, "postgres"), "-D", data, "-k", dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
		"-c", "max_connections=200")
	run.Stdout, run.Stderr = log, log
	alive, err := run.StdinPipe()
	if err != nil {
		return server{}, err
	}
	if err := run.Start(); err != nil {
		return server{}, err
	}
	s := server{dir: dir, alive: alive}
	if err := s.await(log.Name()); err != nil {
		_ = alive.Close()
		return server{}, err
	}
	return s, nil
}

func (s server) await(log string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	db, err := sql.Open("postgres", s.uri("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log)
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// nobody gives dir to the user nobody and returns its credential.
func nobody(dir string) (*syscall.Credential, error) {
	account, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

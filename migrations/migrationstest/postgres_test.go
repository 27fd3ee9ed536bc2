package migrationstest_test

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations/migrationstest"
)

func TestEachIsFresh(t *testing.T) {
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
				_, err := db.Exec(t.Context(), "INSERT INTO webhook_seen (event_key, seen_at) VALUES ('same', 1)")
				require.NoError(t, err)
			})
		})
	}
}

const killedVariable = "PASSERELLE_TEST_KILLED"

// TestServerEndsWithAKilledBinary runs this binary again, which starts a server
// and is then killed.
func TestServerEndsWithAKilledBinary(t *testing.T) {
	if os.Getenv(killedVariable) != "" {
		o := migrationstest.Postgres(t)
		where, err := url.Parse(o.URI)
		require.NoError(t, err)
		_, err = os.Stdout.WriteString("server in " + where.Query().Get("host") + "\n")
		require.NoError(t, err)
		process, err := os.FindProcess(os.Getpid())
		require.NoError(t, err)
		require.NoError(t, process.Kill())
		select {}
	}
	migrationstest.Postgres(t) // skips where there is none
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestServerEndsWithAKilledBinary$")
	again.Env = append(os.Environ(), killedVariable+"=1")
	out, err := again.Output()
	require.ErrorContains(t, err, "killed")
	_, dir, found := strings.Cut(strings.TrimSpace(string(out)), "server in ")
	require.True(t, found, "%s", out)
	pid, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err == nil { // else it has ended already
		require.NotEmpty(t, pid)
	}
	require.Eventually(t, func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	}, 20*time.Second, 50*time.Millisecond, "the keeper removes the folder once the server has ended")
	if number, _, _ := strings.Cut(string(pid), "\n"); number != "" {
		require.NoDirExists(t, filepath.Join("/proc", number))
	}
}

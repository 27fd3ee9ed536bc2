package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

const (
	putSession = `
		INSERT INTO call_session (sfu_room, room_id, slot_id, created_at, last_granted_at)
		VALUES ($1, $2, $3, 1000, 1000)`
	putGrant = `
		INSERT INTO call_grant (sfu_room, identity, user_id, device_id, member_id, server_name, route,
		                        can_publish, may_create, issued_at, expires_at)
		VALUES ($1, $2, '@a:example.org', 'D', 'm', 'example.org', 'legacy', true, true, 1000, 2000)`
	putParticipant = `
		INSERT INTO call_participant (sfu_room, participant_sid, identity, state, joined_at, left_at)
		VALUES ($1, $2, 'i', $3, 1000, $4)`
)

func exec(t *testing.T, db *dbutil.Database, query string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), query, args...)
	require.NoError(t, err)
}

func count(t *testing.T, db *dbutil.Database, table string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

func TestRowsThatBelongToASessionEndWithIt(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		exec(t, db, putSession, "room", "!r:example.org", "m.call#ROOM")
		exec(t, db, putGrant, "room", "alice")
		exec(t, db, putParticipant, "room", "PA_1", "joined", nil)
		var sfu string
		var epoch int
		require.NoError(t, db.QueryRow(t.Context(), "SELECT sfu, epoch FROM call_session").Scan(&sfu, &epoch))
		require.Equal(t, "embedded", sfu)
		require.Equal(t, 1, epoch)

		exec(t, db, "DELETE FROM call_session")
		require.Zero(t, count(t, db, "call_grant"))
		require.Zero(t, count(t, db, "call_participant"))
	})
}

func TestConstraints(t *testing.T) {
	refused := []struct {
		name  string
		query string
		args  []any
	}{
		{"a second session for the slot", putSession, []any{"other", "!r:example.org", "slot"}},
		{"a second session of the same name", putSession, []any{"room", "!other:example.org", "slot"}},
		{"a grant without a session", putGrant, []any{"nowhere", "alice"}},
		{"a second grant for the identity", putGrant, []any{"room", "alice"}},
		{"a participant without a session", putParticipant, []any{"nowhere", "PA_2", "joined", nil}},
		{"a participant twice", putParticipant, []any{"room", "PA_1", "joined", nil}},
		{"a state that is neither joined nor left", putParticipant, []any{"room", "PA_2", "active", nil}},
		{"a leave without a time", putParticipant, []any{"room", "PA_2", "left", nil}},
		{"a time of leave without a leave", putParticipant, []any{"room", "PA_2", "joined", 2000}},
		{"a session without a room", putSession, []any{"other", nil, "slot"}},
	}
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		exec(t, db, putSession, "room", "!r:example.org", "slot")
		exec(t, db, putSession, "second slot", "!r:example.org", "slot 2")
		exec(t, db, putGrant, "room", "alice")
		exec(t, db, putGrant, "room", "bob")
		exec(t, db, putParticipant, "room", "PA_1", "joined", nil)
		exec(t, db, putParticipant, "room", "PA_0", "left", 2000)
		for _, r := range refused {
			t.Run(r.name, func(t *testing.T) {
				_, err := db.Exec(t.Context(), r.query, r.args...)
				require.Error(t, err)
			})
		}
		require.Equal(t, 2, count(t, db, "call_session"))
		require.Equal(t, 2, count(t, db, "call_grant"))
		require.Equal(t, 2, count(t, db, "call_participant"))
	})
}

// TestNewerSchema opens a database that a later Passerelle has upgraded.
func TestNewerSchema(t *testing.T) {
	migrationstest.EachOptions(t, func(t *testing.T, o migrations.Options) {
		ctx := t.Context()
		db, err := migrations.Open(ctx, o)
		require.NoError(t, err)
		known := len(db.UpgradeTable)
		exec(t, db, putSession, "room", "!r:example.org", "slot")
		exec(t, db, "ALTER TABLE call_session ADD COLUMN later TEXT")
		exec(t, db, "UPDATE version SET version = 1003, compat = 1")
		require.NoError(t, db.Close())

		db, err = migrations.Open(ctx, o)
		require.NoError(t, err, "the newer schema can be used by this version")
		exec(t, db, putSession, "room 2", "!r2:example.org", "slot")
		require.Equal(t, 2, count(t, db, "call_session"))
		exec(t, db, "UPDATE version SET version = 1003, compat = 1002")
		require.NoError(t, db.Close())

		_, err = migrations.Open(ctx, o)
		require.ErrorIs(t, err, migrations.ErrTooNew)
		require.ErrorContains(t, err, "the database belongs to a newer Passerelle: "+
			fmt.Sprintf("its schema is v1003 and needs a Passerelle that knows v1002, this one knows v%d; ", known)+
			"start the newer Passerelle again, or restore the backup from before its first start")
	})
}

func TestForeignDatabase(t *testing.T) {
	foreign := map[string]string{
		"another owner":   "UPDATE database_owner SET owner = 'mautrix'",
		"Synapse's table": "CREATE TABLE state_groups_state (state_group BIGINT)",
	}
	for name, change := range foreign {
		t.Run(name, func(t *testing.T) {
			migrationstest.EachOptions(t, func(t *testing.T, o migrations.Options) {
				db, err := migrations.Open(t.Context(), o)
				require.NoError(t, err)
				exec(t, db, change)
				require.NoError(t, db.Close())
				_, err = migrations.Open(t.Context(), o)
				require.ErrorIs(t, err, migrations.ErrForeign)
				require.ErrorContains(t, err, "an empty database of its own")
			})
		})
	}
}

// TestStartAtOnce starts several times on a new database at once: one upgrades,
// and the others wait.
func TestStartAtOnce(t *testing.T) {
	migrationstest.EachOptions(t, func(t *testing.T, o migrations.Options) {
		o.MaxOpenConns = 1
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				db, err := migrations.Open(t.Context(), o)
				if err == nil {
					err = db.Close()
				}
				errs[i] = err
			})
		}
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
		db, err := migrations.Open(t.Context(), o)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		require.Equal(t, 1, count(t, db, "version"))
		require.Equal(t, 1, db.RawDB.Stats().MaxOpenConnections)
		if o.Type == migrations.Postgres {
			require.Zero(t, count(t, db, "pg_locks WHERE locktype = 'advisory'"), "the lock was given back")
		}
	})
}

// TestStartIsGivenUp while another process holds the lock.
func TestStartIsGivenUp(t *testing.T) {
	o := migrationstest.Postgres(t)
	db, err := migrations.Open(t.Context(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	other, err := db.RawDB.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	const number = 0x70617373 // never to change: older versions must wait for newer ones
	_, err = other.ExecContext(t.Context(), "SELECT pg_advisory_lock($1)", number)
	require.NoError(t, err)

	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	started := make(chan error, 1)
	go func() {
		_, err := migrations.Open(ctx, o)
		started <- err
	}()
	require.Eventually(t, func() bool {
		return count(t, db, "pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1
	}, time.Minute, 10*time.Millisecond, "it does not wait for the lock")
	giveUp()
	err = <-started
	require.ErrorContains(t, err, "wait until another Passerelle has upgraded the database")

	_, err = other.ExecContext(t.Context(), "SELECT pg_advisory_unlock($1)", number)
	require.NoError(t, err)
	again, err := migrations.Open(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

// TestSilentPostgres takes the connection and never says anything.
func TestSilentPostgres(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	uri := "postgres://u:hunter2@" + listener.Addr().String() + "/db?sslmode=disable"

	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		if conn, err := listener.Accept(); err == nil {
			giveUp()
			<-t.Context().Done()
			_ = conn.Close()
		}
	}()
	_, err = migrations.Open(ctx, migrations.Options{Type: migrations.Postgres, URI: uri})
	require.ErrorIs(t, err, context.Canceled)

	_, err = migrations.Open(t.Context(), migrations.Options{Type: migrations.Postgres, URI: uri + "&connect_timeout=1"})
	require.ErrorContains(t, err, "i/o timeout")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestSQLiteFile(t *testing.T) {
	for _, name := range []string{"passerelle.db", "a name?with#what%20URLs=mean&.db"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "made", "on the way")
			path := filepath.Join(dir, name)
			db, err := migrations.Open(t.Context(), migrations.Options{
				Type: migrations.SQLite, Path: path, MaxOpenConns: 3, Log: zerolog.Nop(),
			})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			exec(t, db, putSession, "room", "!r:example.org", "slot")

			require.Equal(t, os.FileMode(0o700), mode(t, dir))
			for _, suffix := range []string{"", "-wal", "-shm"} {
				require.Equal(t, os.FileMode(0o600), mode(t, path+suffix), suffix)
			}
			for pragma, want := range map[string]string{
				"journal_mode": "wal", "foreign_keys": "1", "synchronous": "1", "busy_timeout": "5000",
			} {
				var got string
				require.NoError(t, db.QueryRow(t.Context(), "PRAGMA "+pragma).Scan(&got))
				require.Equal(t, want, got, pragma)
			}
			require.Equal(t, 3, db.RawDB.Stats().MaxOpenConnections)
		})
	}
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode().Perm()
}

// TestReadThenWrite is what fails on SQLite without immediate transactions:
// transactions that read first and then write, at once.
func TestReadThenWrite(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		exec(t, db, putSession, "room", "!r:example.org", "slot")
		var wg sync.WaitGroup
		const writers, times = 4, 25
		errs := make([]error, writers)
		increment := func(ctx context.Context) error {
			var at int64
			if err := db.QueryRow(ctx, "SELECT last_granted_at FROM call_session").Scan(&at); err != nil {
				return err
			}
			_, err := db.Exec(ctx, "UPDATE call_session SET last_granted_at = last_granted_at + 1")
			return err
		}
		for i := range errs {
			wg.Go(func() {
				for range times {
					errs[i] = errors.Join(errs[i], db.DoTxn(t.Context(), nil, increment))
				}
			})
		}
		wg.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
		var at int
		require.NoError(t, db.QueryRow(t.Context(), "SELECT last_granted_at FROM call_session").Scan(&at))
		require.Equal(t, 1000+writers*times, at)
	})
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("not a database, and longer than the header of one would be"), 0o600))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	cases := []struct {
		name string
		ctx  context.Context
		o    migrations.Options
		says string
	}{
		{"an unknown type", t.Context(), migrations.Options{Type: "mysql"}, `database type "mysql": must be sqlite or postgres`},
		{"a folder that is a file", t.Context(), migrations.Options{Type: migrations.SQLite, Path: filepath.Join(file, "x.db")}, "folder of the database"},
		{"a file that is a folder", t.Context(), migrations.Options{Type: migrations.SQLite, Path: t.TempDir()}, "database file"},
		{"a file that is no database", t.Context(), migrations.Options{Type: migrations.SQLite, Path: file}, file + ": upgrade database: "},
		{"a start that was given up", gone, migrations.Options{Type: migrations.SQLite, Path: filepath.Join(t.TempDir(), "x.db")}, "context canceled"},
		{"a malformed URI", t.Context(), migrations.Options{Type: migrations.Postgres, URI: "postgres://u:hunter2@host:port/db"}, "the connection string is malformed"},
		{"an unknown key in a URI", t.Context(), migrations.Options{Type: migrations.Postgres, URI: "postgres://u:hunter2@host/db?sslmode=hunter2"}, "the connection string is malformed"},
		{"nobody who answers", t.Context(), migrations.Options{Type: migrations.Postgres, URI: "postgres://u:hunter2@127.0.0.1:1/db?sslmode=disable"}, "connection refused"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := migrations.Open(c.ctx, c.o)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// TestTimesAndTruth pins how values look to Go on both databases.
func TestTimesAndTruth(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		exec(t, db, putSession, "room", "!r:example.org", "slot")
		exec(t, db, putGrant, "room", "alice")
		const farOff = int64(253402300799999) // needs more than 32 bits
		exec(t, db, "UPDATE call_grant SET revoked_at = $1", farOff)
		var publish, revoked bool
		var revokedAt sql.NullInt64
		require.NoError(t, db.QueryRow(t.Context(), "SELECT can_publish, revoked, revoked_at FROM call_grant").
			Scan(&publish, &revoked, &revokedAt))
		require.True(t, publish)
		require.False(t, revoked)
		require.Equal(t, farOff, revokedAt.Int64)
	})
}

// TestInMemory: connections share it, it outlives all that database/sql closes,
// two are two, and nothing is on disk.
func TestInMemory(t *testing.T) {
	t.Chdir(t.TempDir())
	open := func() *dbutil.Database {
		db, err := migrations.Open(t.Context(), migrations.Options{Type: migrations.SQLite, MaxOpenConns: 8, Log: zerolog.Nop()})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return db
	}
	db, other := open(), open()
	exec(t, db, putSession, "room", "!r:example.org", "slot")
	ctx, cancel := context.WithCancel(t.Context())
	_ = db.DoTxn(ctx, nil, func(ctx context.Context) error {
		_, err := db.Exec(ctx, putSession, "second", "!s:example.org", "slot")
		cancel()
		return err
	})
	db.RawDB.SetMaxIdleConns(0)
	db.RawDB.SetMaxIdleConns(8)
	require.Equal(t, 1, count(t, db, "call_session"))
	require.Zero(t, count(t, other, "call_session"))
	var writing sync.WaitGroup
	for i := range 16 {
		writing.Go(func() {
			_, err := db.Exec(context.WithoutCancel(t.Context()), putGrant, "room", i)
			require.NoError(t, err)
		})
	}
	writing.Wait()
	require.Equal(t, 16, count(t, db, "call_grant"))
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, files)
}

// TestSynced: who asks for it waits for the disk at each commit.
func TestSynced(t *testing.T) {
	o := migrations.Options{Type: migrations.SQLite, Path: filepath.Join(t.TempDir(), "p.db"), MaxOpenConns: 2, Log: zerolog.Nop()}
	for synced, want := range map[bool]int{false: 1 /* NORMAL */, true: 2 /* FULL */} {
		o.Synced = synced
		db, err := migrations.Open(t.Context(), o)
		require.NoError(t, err)
		defer db.Close()
		var got int
		require.NoError(t, db.QueryRow(t.Context(), "PRAGMA synchronous").Scan(&got))
		require.Equal(t, want, got)
	}
}

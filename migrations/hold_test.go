package migrations_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

func holdOptions(uri string, alone bool) migrations.HoldOptions {
	return migrations.HoldOptions{URI: uri, Alone: alone, Patience: 200 * time.Millisecond, Log: zerolog.Nop()}
}

// Who needs a PostgreSQL database alone shares it with nobody, whoever came first;
// those who do not share it among them.
func TestWhoHasTheDatabaseAlone(t *testing.T) {
	uri := migrationstest.Postgres(t).URI
	alone, err := migrations.HoldPostgres(t.Context(), holdOptions(uri, true))
	require.NoError(t, err)
	_, err = migrations.HoldPostgres(t.Context(), holdOptions(uri, true))
	require.ErrorIs(t, err, migrations.ErrInUse)
	require.ErrorContains(t, err, "livekit.mode external")
	_, err = migrations.HoldPostgres(t.Context(), holdOptions(uri, false))
	require.ErrorIs(t, err, migrations.ErrInUse)
	elsewhere, err := migrations.HoldPostgres(t.Context(), holdOptions(migrationstest.Postgres(t).URI, true))
	require.NoError(t, err)
	elsewhere.Release()
	alone.Release()

	one, err := migrations.HoldPostgres(t.Context(), holdOptions(uri, false))
	require.NoError(t, err)
	other, err := migrations.HoldPostgres(t.Context(), holdOptions(uri, false))
	require.NoError(t, err)
	_, err = migrations.HoldPostgres(t.Context(), holdOptions(uri, true))
	require.ErrorIs(t, err, migrations.ErrInUse)
	one.Release()
	other.Release()
}

// A start waits for the process before, whose connection PostgreSQL may not have
// missed yet, until it is given up.
func TestAStartWaitsForTheProcessBefore(t *testing.T) {
	o := holdOptions(migrationstest.Postgres(t).URI, true)
	o.Patience = time.Minute
	before, err := migrations.HoldPostgres(t.Context(), o)
	require.NoError(t, err)
	ctx, giveUp := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, giveUp)
	_, err = migrations.HoldPostgres(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, migrations.ErrInUse)

	time.AfterFunc(50*time.Millisecond, before.Release)
	now, err := migrations.HoldPostgres(t.Context(), o)
	require.NoError(t, err)
	now.Release()
}

// cut ends the connections that hold the database, as a restart of PostgreSQL
// does.
func cut(t *testing.T, db *dbutil.Database) {
	t.Helper()
	exec(t, db, "SELECT pg_terminate_backend(pid) FROM "+holders)
	awaitFree(t, db)
}

const holders = "pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"

// awaitFree returns when nobody holds the database: PostgreSQL lets go of what a
// connection held a moment after it is closed.
func awaitFree(t *testing.T, db *dbutil.Database) {
	t.Helper()
	require.Eventually(t, func() bool { return count(t, db, holders) == 0 }, time.Minute, time.Millisecond)
}

// A hold that was lost is taken again. When somebody else was faster that is said,
// once, until it is free.
func TestAHoldThatWasLost(t *testing.T) {
	settings := migrationstest.Postgres(t)
	db, err := migrations.Open(t.Context(), settings)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var log bytes.Buffer
	o := holdOptions(settings.URI, true)
	o.Log = zerolog.New(&log)
	h, err := migrations.HoldPostgres(t.Context(), o)
	require.NoError(t, err)
	defer h.Release()
	h.Keep(t.Context())
	require.Empty(t, log.String())

	cut(t, db)
	h.Keep(t.Context())
	require.Contains(t, log.String(), "taken again")
	_, err = migrations.HoldPostgres(t.Context(), holdOptions(settings.URI, true))
	require.ErrorIs(t, err, migrations.ErrInUse)

	cut(t, db)
	faster, err := migrations.HoldPostgres(t.Context(), holdOptions(settings.URI, true))
	require.NoError(t, err)
	log.Reset()
	h.Keep(t.Context())
	h.Keep(t.Context())
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("\n")), log.String())
	require.Contains(t, log.String(), `"level":"error"`)
	faster.Release()
	awaitFree(t, db)
	log.Reset()
	h.Keep(t.Context())
	require.Contains(t, log.String(), "taken again")
	h.Keep(t.Context())
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("\n")), log.String())
}

// A PostgreSQL that says nothing holds up neither a start that is given up nor
// shows its connection string.
func TestAHoldOnSilentPostgres(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		if conn, err := listener.Accept(); err == nil {
			giveUp()
			<-t.Context().Done()
			_ = conn.Close()
		}
	}()
	_, err = migrations.HoldPostgres(ctx, holdOptions("postgres://u:hunter2@"+listener.Addr().String()+"/db?sslmode=disable", true))
	require.ErrorIs(t, err, context.Canceled)
	_, err = migrations.HoldPostgres(t.Context(), holdOptions("postgres://u:hunter2@127.0.0.1:1/db?sslmode=disable", true))
	require.ErrorContains(t, err, "connection refused")
	require.NotContains(t, err.Error(), "hunter2")
	_, err = migrations.HoldPostgres(t.Context(), holdOptions("postgres://u:hunter2@host:port/db", true))
	require.ErrorContains(t, err, "malformed")
	require.NotContains(t, err.Error(), "hunter2")
}

// A PostgreSQL that falls silent later does not hold up the end.
func TestAHoldWhosePostgresFallsSilent(t *testing.T) {
	uri, err := url.Parse(migrationstest.Postgres(t).URI)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	var silent atomic.Bool
	fell := make(chan struct{})
	go func() {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", filepath.Join(uri.Query().Get("host"), ".s.PGSQL.5432"))
		if err != nil {
			_ = client.Close()
			return
		}
		go func() { _, _ = io.Copy(client, server) }()
		defer server.Close()
		buffer := make([]byte, 4096)
		for {
			n, err := client.Read(buffer)
			if err != nil {
				return
			}
			if silent.Load() {
				close(fell)
				<-t.Context().Done()
				return
			}
			_, _ = server.Write(buffer[:n])
		}
	}()
	h, err := migrations.HoldPostgres(t.Context(), holdOptions("postgres://postgres@"+listener.Addr().String()+uri.Path+"?sslmode=disable", true))
	require.NoError(t, err)
	silent.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() { h.Keep(ctx); close(kept) }()
	<-fell
	stop()
	select {
	case <-kept:
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for PostgreSQL")
	}
	h.Release()
}

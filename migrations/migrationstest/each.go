// Package migrationstest runs a test on every database that Passerelle
// supports, each time on a fresh one that has the latest schema. The PostgreSQL
// server is started by the first test of a binary that needs it and ends with
// the binary. Its functions may be called by several tests at once.
package migrationstest

import (
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations"
)

// Each runs test once on SQLite and once on PostgreSQL. Where no
// PostgreSQL is at hand, the second is skipped by name, or fails when
// PASSERELLE_REQUIRE_PARTS is 1.
func Each(t *testing.T, test func(t *testing.T, db *dbutil.Database)) {
	t.Helper()
	EachOptions(t, func(t *testing.T, o migrations.Options) {
		db, err := migrations.Open(t.Context(), o)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		test(t, db)
	})
}

// EachOptions is [Each] for tests that open the database themselves, perhaps
// more than once.
func EachOptions(t *testing.T, test func(t *testing.T, o migrations.Options)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		test(t, migrations.Options{
			Type: migrations.SQLite, Path: filepath.Join(t.TempDir(), "test.db"), MaxOpenConns: 4, Log: zerolog.Nop(),
		})
	})
	t.Run("postgres", func(t *testing.T) { test(t, Postgres(t)) })
}

// Postgres is an empty PostgreSQL database, for tests of what SQLite has not.
// Where no PostgreSQL is at hand it ends the test as [Each] does.
func Postgres(t *testing.T) migrations.Options {
	t.Helper()
	return migrations.Options{Type: migrations.Postgres, URI: freshPostgres(t), MaxOpenConns: 4, Log: zerolog.Nop()}
}

// Package migrationstest runs a test on every database that Passerelle
// supports, each time on a fresh one that has the latest schema.
package migrationstest

import (
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations"
)

// Each runs test once on SQLite and once on PostgreSQL. Without a PostgreSQL
// server to start, the second is skipped by name; see package postgrestest.
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
	t.Run("postgres", func(t *testing.T) {
		test(t, migrations.Options{
			Type: migrations.Postgres, URI: freshPostgres(t), MaxOpenConns: 4, Log: zerolog.Nop(),
		})
	})
}

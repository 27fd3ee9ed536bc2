package migrations_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sqliteSchema and postgresSchema print a schema, one fact a line, in an order
// that does not depend on how the schema came to be.
const (
	sqliteSchema = `
		SELECT s.name || '.' || c.name || ' ' || c.type || CASE WHEN c."notnull" THEN ' NOT NULL' ELSE '' END ||
			COALESCE(' DEFAULT ' || c.dflt_value, '') || CASE WHEN c.pk > 0 THEN ' KEY ' || c.pk ELSE '' END
		FROM sqlite_schema s, pragma_table_info(s.name) c WHERE s.type = 'table'
		UNION ALL
		SELECT s.name || ': ' || CASE WHEN i."unique" THEN 'UNIQUE ' ELSE '' END || 'INDEX (' ||
			(SELECT group_concat(name, ', ') FROM pragma_index_info(i.name)) || ') ' ||
			CASE i.origin WHEN 'c' THEN i.name ELSE i.origin END
		FROM sqlite_schema s, pragma_index_list(s.name) i WHERE s.type = 'table'
		UNION ALL
		SELECT s.name || ': FOREIGN KEY (' || f."from" || ') TO ' || f."table" || '.' || f."to" || ' ON DELETE ' || f.on_delete
		FROM sqlite_schema s, pragma_foreign_key_list(s.name) f WHERE s.type = 'table'
		ORDER BY 1`
	postgresSchema = `
		SELECT table_name || '.' || column_name || ' ' || data_type ||
			CASE is_nullable WHEN 'NO' THEN ' NOT NULL' ELSE '' END || COALESCE(' DEFAULT ' || column_default, '')
		FROM information_schema.columns WHERE table_schema = 'public'
		UNION ALL
		SELECT conrelid::regclass || ': ' || conname || ' ' || pg_get_constraintdef(oid)
		FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
		UNION ALL
		SELECT tablename || ': ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
		ORDER BY 1`
)

func schema(t *testing.T, db *dbutil.Database) string {
	t.Helper()
	query := sqliteSchema
	if db.Dialect == dbutil.Postgres {
		query = postgresSchema
	}
	rows, err := db.Query(t.Context(), query)
	require.NoError(t, err)
	facts, err := dbutil.NewRowIterWithError(rows, dbutil.ScanSingleColumn[string], err).AsList()
	require.NoError(t, err)
	return strings.Join(facts, "\n") + "\n"
}

func TestSchema(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		got := schema(t, db)
		golden := filepath.Join("testdata", "schema."+db.Dialect.String()+".golden")
		if *update {
			require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(string(want), got), "a schema that was released changes by a new migration alone")
	})
}

// TestStepsEqualFreshInstall compares what Open makes of an empty database
// with what every numbered file makes of it, one after the other; a file that
// leads from nothing to the latest version, 00-latest.sql, is left out there.
func TestStepsEqualFreshInstall(t *testing.T) {
	steps := fstest.MapFS{}
	files, err := fs.Glob(os.DirFS("."), "*.sql")
	require.NoError(t, err)
	for _, name := range files {
		if !strings.HasPrefix(name, "00-") {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			require.True(t, strings.HasPrefix(string(text), fmt.Sprintf("-- v%d -> v%d", len(steps), len(steps)+1)),
				"%s: its first line names both versions, without a gap", name)
			steps[name] = &fstest.MapFile{Data: text}
		}
	}
	require.NotEmpty(t, steps)
	migrationstest.EachOptions(t, func(t *testing.T, o migrations.Options) {
		db, err := migrations.Open(t.Context(), o)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		fresh := schema(t, db)
		for _, table := range []string{"call_participant", "call_grant", "call_session", "webhook_seen", "delayed_leave", "version"} {
			exec(t, db, "DROP TABLE "+table)
		}
		db.UpgradeTable = dbutil.BuildUpgradeTable().WithFS(steps).Finish()
		require.NoError(t, db.Upgrade(t.Context()))
		require.Empty(t, cmp.Diff(fresh, schema(t, db)))
	})
}

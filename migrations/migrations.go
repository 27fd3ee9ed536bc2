// Package migrations owns the database's schema: numbered SQL files, the same
// for SQLite and PostgreSQL, and the one Open that applies them. It knows no
// query; those stand beside the code that needs them.
//
// A file that was released is never edited. Its first line says which version
// it leads to and down to which older version the result can still be used
// ("compatible with v1+"): a Passerelle of that older version starts on the
// newer schema, so that an upgrade can be taken back.
//
// The database that Open returns may be used by any number of goroutines.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
)

//go:embed *.sql
var files embed.FS

// The types of database.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

// owner marks the database as Passerelle's, so that a mistyped connection
// string does not put our tables into another program's database.
const owner = "passerelle"

// ErrTooNew is returned when the database was upgraded by a version of
// Passerelle whose schema this one cannot use.
var ErrTooNew = errors.New("the database belongs to a newer Passerelle")

// ErrForeign is returned when the tables of another program are in the
// database.
var ErrForeign = errors.New("the database belongs to another program")

// Options say which database to open.
type Options struct {
	// Type is [SQLite] or [Postgres].
	Type string
	// Path is SQLite's file. Its folder is made when it does not exist. Empty:
	// a database in memory, which ends with Close.
	Path string
	// URI is PostgreSQL's connection string. It is never logged.
	URI string
	// MaxOpenConns bounds the pool.
	MaxOpenConns int
	// Synced: what is committed stays, whatever happens to the machine. Without
	// it a power cut can take back what was committed to SQLite's file a moment
	// before, though the end of the process cannot; waiting for the disk would
	// cost many times what the rest of a commit does. PostgreSQL always waits.
	Synced bool
	Log    zerolog.Logger
}

// Open opens the database and brings its schema to the latest version. Of
// several processes that start at once, one upgrades and the others wait. Its
// errors are [ErrTooNew], [ErrForeign] and those of the drivers; none holds the
// connection string.
func Open(ctx context.Context, o Options) (*dbutil.Database, error) {
	var db *dbutil.Database
	var err error
	switch o.Type {
	case SQLite:
		if o.Path == "" {
			db, err = openMemory()
		} else {
			db, err = openSQLite(o.Path, o.Synced)
		}
	case Postgres:
		db, err = openPostgres(ctx, o.URI)
	default:
		return nil, fmt.Errorf("database type %q: must be %s or %s", o.Type, SQLite, Postgres)
	}
	if err != nil {
		return nil, err
	}
	db.Log = dbutil.ZeroLogger(o.Log)
	db.Owner = owner
	db.UpgradeTable = dbutil.BuildUpgradeTable().WithFS(files).Finish()
	db.IgnoreForeignTables = false
	if err := upgrade(ctx, db); err != nil {
		if o.Type == SQLite && o.Path != "" {
			err = fmt.Errorf("%s: %w", o.Path, err)
		}
		return nil, errors.Join(err, db.Close())
	}
	// Not before the upgrade, which needs a connection beside the lock's.
	db.RawDB.SetMaxOpenConns(max(o.MaxOpenConns, 1))
	db.RawDB.SetMaxIdleConns(max(o.MaxOpenConns, 1))
	o.Log.Debug().Str("type", o.Type).Int("schema", len(db.UpgradeTable)).Msg("Database opened")
	return db, nil
}

func openSQLite(path string, synced bool) (*dbutil.Database, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("folder of the database: %w", err)
	}
	// SQLite itself would make it readable for all.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("database file: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("database file: %w", err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("database file: %w", err)
	}
	synchronous := "NORMAL"
	if synced {
		synchronous = "FULL"
	}
	address := sqliteAddress(absolute, "_journal_mode", "WAL", "_synchronous", synchronous)
	db, err := dbutil.NewWithDB(sql.OpenDB(newSQLite(address)), "sqlite3")
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, err)
	}
	return db, nil
}

// sqliteAddress is what the driver opens: a path, and settings beside those
// that each database has.
func sqliteAddress(path string, settings ...string) string {
	query := url.Values{
		"_foreign_keys": {"on"},
		"_busy_timeout": {"5000"},
		// A transaction that reads first and writes later would fail at once
		// when another one writes in between.
		"_txlock": {"immediate"},
		// Statements stay prepared. There are some tens, and one for each
		// number of grants that are written together.
		"_stmt_cache_size": {"128"},
	}
	for i := 0; i < len(settings); i += 2 {
		query.Set(settings[i], settings[i+1])
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

func openPostgres(ctx context.Context, uri string) (*dbutil.Database, error) {
	c, err := newConnector(uri)
	if err != nil {
		return nil, err
	}
	db, err := dbutil.NewWithDB(sql.OpenDB(c), "postgres")
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := db.RawDB.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to PostgreSQL: %w", err), db.Close())
	}
	db.RawDB.SetConnMaxIdleTime(5 * time.Minute)
	return db, nil
}

// lockNumber is the advisory lock that upgrades of this schema take:
// "pass" in ASCII.
const lockNumber = 0x70617373

// lockTimeout bounds the wait for it: long enough for the upgrade of a large
// database, and short enough for a start that hangs to be noticed.
const lockTimeout = 5 * time.Minute

func upgrade(ctx context.Context, db *dbutil.Database) error {
	// SQLite has one writer: a transaction around all of it, from the reading of
	// the version on, is its lock. Hence no file may ask for one of its own kind.
	run := func(ctx context.Context) error { return db.DoTxn(ctx, nil, db.Upgrade) }
	if db.Dialect == dbutil.Postgres {
		run = db.Upgrade
		conn, err := db.RawDB.Conn(ctx)
		if err != nil {
			return fmt.Errorf("lock database for its upgrade: %w", err)
		}
		defer func() { _ = conn.Close() }()
		if err := lock(ctx, conn); err != nil {
			return fmt.Errorf("wait until another Passerelle has upgraded the database: %w", err)
		}
		defer unlock(ctx, conn)
	}
	err := run(ctx)
	switch {
	case errors.Is(err, dbutil.ErrUnsupportedDatabaseVersion):
		return tooNew(ctx, db)
	case errors.Is(err, dbutil.ErrNotOwned), errors.Is(err, dbutil.ErrForeignTables):
		return fmt.Errorf("%w (%w); give Passerelle an empty database of its own", ErrForeign, err)
	case err != nil:
		return fmt.Errorf("upgrade database: %w", err)
	}
	return nil
}

// tooNew names the versions on both sides, and the way back.
func tooNew(ctx context.Context, db *dbutil.Database) error {
	var version, compat int
	if err := db.QueryRow(ctx, "SELECT version, compat FROM version").Scan(&version, &compat); err != nil {
		return fmt.Errorf("%w: read its version: %w", ErrTooNew, err)
	}
	return fmt.Errorf("%w: its schema is v%d and needs a Passerelle that knows v%d, this one knows v%d; "+
		"start the newer Passerelle again, or restore the backup from before its first start",
		ErrTooNew, version, compat, len(db.UpgradeTable))
}

func lock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", lockNumber)
	return err
}

// unlock gives the lock back even when the start was given up meanwhile: the
// connection returns to a pool.
func unlock(ctx context.Context, conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
	defer cancel()
	_, _ = conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", lockNumber)
}

package migrations

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"fmt"

	"github.com/mattn/go-sqlite3"
	"go.mau.fi/util/dbutil"
)

// memory makes the connections to one SQLite database in memory. SQLite
// forgets it with the last of them, and database/sql closes connections as it
// likes, such as after a transaction that was given up: one is kept aside.
type memory struct {
	driver  *sqlite3.SQLiteDriver
	address string
	keeper  driver.Conn
}

func openMemory() (*dbutil.Database, error) {
	m := &memory{driver: &sqlite3.SQLiteDriver{}, address: sqliteAddress("/"+rand.Text(), "vfs", "memdb")}
	var err error
	if m.keeper, err = m.driver.Open(m.address); err != nil {
		return nil, fmt.Errorf("open database in memory: %w", err)
	}
	db, err := dbutil.NewWithDB(sql.OpenDB(m), "sqlite3")
	if err != nil {
		return nil, fmt.Errorf("open database in memory: %w", err)
	}
	return db, nil
}

// Connect implements [driver.Connector].
func (m *memory) Connect(context.Context) (driver.Conn, error) { return m.driver.Open(m.address) }

// Driver implements [driver.Connector].
func (m *memory) Driver() driver.Driver { return m.driver }

// Close implements [io.Closer], for [sql.DB.Close].
func (m *memory) Close() error { return m.keeper.Close() }

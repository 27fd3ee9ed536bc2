package migrations

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// checkpointPages is after how many pages of 4 KiB in the write-ahead log they
// are put into the database file. That waits for the disk, and every writer for
// it; SQLite's own 1000 would have that several times a second when many come
// at once. The log grows to some 32 MiB by it.
const checkpointPages = 8000

// sqlite opens the connections of a pool.
type sqlite struct {
	driver  sqlite3.SQLiteDriver
	address string
}

func newSQLite(address string) *sqlite {
	s := &sqlite{address: address}
	// Each connection has its own settings, and the address has no word for these.
	// Without temp_store a statement's own journal is a file, made and removed
	// each time.
	settings := fmt.Sprintf("PRAGMA wal_autocheckpoint = %d; PRAGMA temp_store = MEMORY", checkpointPages)
	s.driver.ConnectHook = func(conn *sqlite3.SQLiteConn) error {
		_, err := conn.Exec(settings, nil)
		return err
	}
	return s
}

// Connect implements [driver.Connector].
func (s *sqlite) Connect(context.Context) (driver.Conn, error) { return s.driver.Open(s.address) }

// Driver implements [driver.Connector].
func (s *sqlite) Driver() driver.Driver { return &s.driver }

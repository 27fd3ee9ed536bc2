package migrations

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInUse is returned when another process has the SQLite file.
var ErrInUse = errors.New("another Passerelle uses the database")

// lockSuffix is added to the path of the database file. The file itself must not
// be opened beside SQLite: closing it would end SQLite's own locks.
const lockSuffix = ".lock"

// Lock makes an SQLite file this process's own, until unlock or its end. What
// an earlier process left in it belongs to the one that starts, at once: two
// that run would take it from each other. It makes the file's folder.
func Lock(path string) (unlock func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("folder of the database: %w", err)
	}
	file, err := os.OpenFile(path+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the database: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = fmt.Errorf("%s: %w; give each its own file, or use PostgreSQL", path, ErrInUse)
	case err != nil:
		err = fmt.Errorf("lock %s: %w", path+lockSuffix, err)
	default:
		return func() error {
			// A process that is just being started may hold a copy for a moment.
			return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
		}, nil
	}
	return nil, errors.Join(err, file.Close())
}

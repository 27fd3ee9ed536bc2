package sfu

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockedFolder is the data folder, ours alone until unlock.
type lockedFolder struct{ *os.File }

// lockFolder opens the data folder and locks it: two Passerelles would take
// the same child in turns. The lock ends with the process.
func lockFolder(path string) (lockedFolder, error) {
	dir, err := os.Open(path)
	if err != nil {
		return lockedFolder{}, fmt.Errorf("server.data_dir: %w", err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return lockedFolder{}, errors.Join(fmt.Errorf("server.data_dir: another Passerelle uses %s (give each its own)", path), dir.Close())
	}
	return lockedFolder{dir}, nil
}

// errFolder is returned when the data folder is not any more where it was: a
// child would make its socket elsewhere, and we would look for it in vain.
var errFolder = errors.New("the folder was moved or removed while Passerelle ran")

// check says whether the folder is still the one at the path.
func (d lockedFolder) check(path string) error {
	ours, err := d.Stat()
	if err != nil {
		return fmt.Errorf("server.data_dir: %w", err)
	}
	there, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(ours, there) {
		return fmt.Errorf("server.data_dir: %s: %w", path, errFolder)
	}
	return nil
}

// unlock says so explicitly: a process that we are just starting may hold a
// copy of the file for a moment, and closing ours would not end the lock.
func (d lockedFolder) unlock() {
	_ = syscall.Flock(int(d.Fd()), syscall.LOCK_UN)
	_ = d.Close()
}

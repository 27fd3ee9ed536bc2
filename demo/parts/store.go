// Package parts fetches the real parts that the demonstration and the tests
// run: Synapse from PyPI, Dendrite as a Go module, Element Call from npm,
// Chromium, PostgreSQL and Redis from Debian. It installs into one folder that
// git ignores, pins every version, and says in words what is missing where it
// cannot.
//
// A part is there when its stamp is: the stamp is written last and names what
// it was made from, so that a fetch that was interrupted is done again and a
// changed version is fetched. Two processes never fetch at once.
package parts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrMissing is returned for a part that is not there, by a store that may not
// fetch.
var ErrMissing = errors.New("not installed")

// Store is the folder of parts.
type Store struct {
	// Dir is the folder; Root that of the checkout.
	Dir, Root string
	// Progress gets a line for each step that takes long.
	Progress io.Writer
	// Lang is the language of these lines, fr or en; empty is en.
	Lang string
	// Fetch allows to install what is missing.
	Fetch bool
}

// Open finds the folder: PASSERELLE_PARTS_DIR, or .cache in the checkout that
// the working directory belongs to.
func Open(progress io.Writer, fetch bool) (*Store, error) {
	root, err := checkout()
	if err != nil {
		return nil, err
	}
	dir := os.Getenv("PASSERELLE_PARTS_DIR")
	if dir == "" {
		dir = filepath.Join(root, ".cache")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	return &Store{Dir: dir, Root: root, Progress: progress, Fetch: fetch}, nil
}

// checkout is the nearest folder above that has a go.mod.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("run this inside a checkout of Passerelle")
		}
	}
}

// part is one thing to fetch.
type part struct {
	name string
	// takes is how long it usually takes, limit the longest it may.
	takes, limit time.Duration
	// pin is all that it is made from.
	pin string
	// fetch fills the empty folder.
	fetch func(ctx context.Context, dir string) error
}

// ensure returns the part's folder, fetching it if need be.
func (s *Store) ensure(ctx context.Context, p part) (string, error) {
	dir := filepath.Join(s.Dir, p.name)
	if s.stamped(dir, p) {
		return dir, nil
	}
	if !s.Fetch {
		return "", fmt.Errorf("%s: %w; run make parts", p.name, ErrMissing)
	}
	unlock, err := s.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	if s.stamped(dir, p) { // another process was faster
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("%s: %w", p.name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("%s: %w", p.name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.limit, fmt.Errorf("it took longer than %s", p.limit))
	defer cancel()
	began := time.Now()
	s.say(func(t text) string { return t.fetching }, p.name, p.takes)
	if err := p.fetch(ctx, dir); err != nil {
		return "", fmt.Errorf("fetch %s: %w", p.name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".stamp"), []byte(stamp(p)), 0o644); err != nil {
		return "", fmt.Errorf("%s: %w", p.name, err)
	}
	s.say(func(t text) string { return t.fetched }, p.name, time.Since(began).Round(time.Second))
	return dir, nil
}

func stamp(p part) string {
	sum := sha256.Sum256([]byte(p.pin))
	return hex.EncodeToString(sum[:])
}

func (s *Store) stamped(dir string, p part) bool {
	have, err := os.ReadFile(filepath.Join(dir, ".stamp"))
	return err == nil && string(have) == stamp(p)
}

// lock keeps other processes from fetching until the returned function is
// called.
func (s *Store) lock() (func(), error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(s.Dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// run runs a step whose words go to a log file; when it fails, the error ends
// with the last of them.
func (s *Store) run(ctx context.Context, dir, log string, env []string, name string, args ...string) error {
	path := filepath.Join(s.Dir, log+".log")
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	command.Env = append(os.Environ(), env...)
	command.Stdout, command.Stderr = file, file
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 10 * time.Second
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w\n%s\n(all of it is in %s)", name, err, lastLines(path, 12), path)
	}
	return nil
}

func lastLines(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// need finds a program, or says what it is for.
func need(program, purpose string) error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("%s is not installed, and %s; install it (on Debian: apt-get install %s)", program, purpose, program)
	}
	return nil
}

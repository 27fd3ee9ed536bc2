package parts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// Chromium returns the browser's program: that of the environment variable
// CHROMIUM, or one that is installed, or one that apt-get installs.
func (s *Store) Chromium(ctx context.Context) (program string, err error) {
	if named := os.Getenv("CHROMIUM"); named != "" {
		return exec.LookPath(named)
	}
	if program = firstProgram("chromium", "chromium-browser", "google-chrome"); program != "" {
		return program, nil
	}
	const hint = "on Debian: apt-get install chromium; elsewhere install it and set CHROMIUM to its path"
	if !s.Fetch {
		return "", fmt.Errorf("chromium: %w (%s)", ErrMissing, hint)
	}
	if err := s.install(ctx, "chromium", "chromium", time.Minute); err != nil {
		return "", fmt.Errorf("chromium is needed to call (%s): %w", hint, err)
	}
	if program = firstProgram("chromium"); program == "" {
		return "", errors.New("chromium was installed and cannot be found")
	}
	return program, nil
}

// Postgres returns the folder of PostgreSQL's programs.
func (s *Store) Postgres(ctx context.Context) (binaries string, err error) {
	if binaries = postgresBinaries(); binaries != "" {
		return binaries, nil
	}
	const hint = "on Debian: apt-get install postgresql"
	if !s.Fetch {
		return "", fmt.Errorf("postgresql: %w (%s)", ErrMissing, hint)
	}
	if err := s.install(ctx, "postgresql", "postgresql", 30*time.Second); err != nil {
		return "", fmt.Errorf("postgresql is needed for the tests (%s): %w", hint, err)
	}
	if binaries = postgresBinaries(); binaries == "" {
		return "", errors.New("postgresql was installed and cannot be found")
	}
	return binaries, nil
}

// postgresBinaries finds the newest server that Debian installed.
func postgresBinaries() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		if program := firstProgram("initdb"); program != "" {
			return filepath.Dir(program)
		}
		return ""
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// Redis returns Redis' server program.
func (s *Store) Redis(ctx context.Context) (program string, err error) {
	const name = "redis-server"
	if program = firstProgram(name); program != "" {
		return program, nil
	}
	const hint = "on Debian: apt-get install redis-server"
	if !s.Fetch {
		return "", fmt.Errorf("redis: %w (%s)", ErrMissing, hint)
	}
	if err := s.install(ctx, "redis", name, 5*time.Second); err != nil {
		return "", fmt.Errorf("redis is needed for the tests (%s): %w", hint, err)
	}
	if program = firstProgram(name); program == "" {
		return "", errors.New("redis was installed and cannot be found")
	}
	return program, nil
}

func firstProgram(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// install asks Debian's package manager, which only root may.
func (s *Store) install(ctx context.Context, name, pkg string, takes time.Duration) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can install packages")
	}
	if err := need("apt-get", "this is how packages are installed here"); err != nil {
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	s.say(func(t text) string { return t.installing }, name, takes)
	// A package must not start a service of its own: in run level 1 Debian's
	// maintainer scripts do not.
	env := []string{"DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1"}
	if err := s.run(ctx, s.Dir, name+"-update", env, "apt-get", "update", "-q"); err != nil {
		return err
	}
	return s.run(ctx, s.Dir, name+"-install", env, "apt-get", "install", "-y", "-q", "--no-install-recommends", pkg)
}

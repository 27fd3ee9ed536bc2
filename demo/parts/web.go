package parts

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// minNode is the oldest Node.js that builds the host page.
const minNode = 20

// Web returns the folder with the host page and Element Call.
func (s *Store) Web(ctx context.Context) (dist string, err error) {
	source := filepath.Join(s.Root, "demo", "host", "web")
	pin, err := contents(source)
	if err != nil {
		return "", err
	}
	dir, err := s.ensure(ctx, part{
		name: "web", takes: 30 * time.Second, limit: 10 * time.Minute, pin: pin,
		fetch: func(ctx context.Context, dir string) error { return s.fetchWeb(ctx, source, dir) },
	})
	return filepath.Join(dir, "dist"), err
}

func (s *Store) fetchWeb(ctx context.Context, source, dir string) error {
	if err := need("npm", "Element Call comes from npm"); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "v"), ".")
	if version, convErr := strconv.Atoi(major); err != nil || convErr != nil || version < minNode {
		return errors.New("node is missing or older than version " + strconv.Itoa(minNode))
	}
	build := filepath.Join(dir, "build")
	if err := os.CopyFS(build, sourceFS{os.DirFS(source)}); err != nil {
		return err
	}
	if err := s.run(ctx, build, "web-npm", nil, "npm", "ci", "--no-audit", "--no-fund", "--no-progress"); err != nil {
		return err
	}
	if err := s.run(ctx, build, "web-build", nil, "npm", "run", "build", "--", filepath.Join(dir, "dist")); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(build, "node_modules"))
}

// contents is all sources of the host page, one after the other.
func contents(dir string) (string, error) {
	var all strings.Builder
	root := sourceFS{os.DirFS(dir)}
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(root, path)
		all.WriteString(path + "\x00")
		all.Write(data)
		return err
	})
	return all.String(), err
}

// sourceFS hides what a build by hand leaves beside the sources.
type sourceFS struct{ fs.FS }

// ReadDir implements [fs.ReadDirFS].
func (f sourceFS) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(f.FS, name)
	var kept []fs.DirEntry
	for _, entry := range all {
		if entry.Name() != "node_modules" && entry.Name() != "dist" {
			kept = append(kept, entry)
		}
	}
	return kept, err
}

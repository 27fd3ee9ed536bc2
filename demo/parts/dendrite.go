package parts

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// dendriteModule and dendriteSums pin Dendrite and all that it needs: the go.mod
// and the go.sum of a module of its own, since ours must not know it. The module
// is there because `go install` with a version asks for a list of versions that
// not every module proxy has. Its SQLite is the version that ours has, which is
// built already.
//
//go:embed dendrite-mod.txt
var dendriteModule string

//go:embed dendrite-sum.txt
var dendriteSums string

// dendritePackage is Dendrite's program.
const dendritePackage = "github.com/element-hq/dendrite/cmd/dendrite"

// Dendrite returns the program of a homeserver that has few of the features that
// calls use.
func (s *Store) Dendrite(ctx context.Context) (program string, err error) {
	dir, err := s.ensure(ctx, part{
		name: "dendrite", takes: 2 * time.Minute, limit: 20 * time.Minute, pin: dendriteModule + dendriteSums,
		fetch: s.fetchDendrite,
	})
	return filepath.Join(dir, "dendrite"), err
}

func (s *Store) fetchDendrite(ctx context.Context, dir string) error {
	if err := need("gcc", "Dendrite's SQLite is written in C"); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"go.mod": dendriteModule,
		"go.sum": dendriteSums,
		// It names the program, so that go.mod is tidy.
		"program.go": "//go:build never\n\npackage program\n\nimport _ \"" + dendritePackage + "\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	env := []string{"CGO_ENABLED=1", "GOWORK=off"}
	err := s.run(ctx, dir, "dendrite-build", env, "go", "build", "-mod=readonly", "-buildvcs=false", "-ldflags=-s -w",
		"-o", filepath.Join(dir, "dendrite"), dendritePackage)
	if err != nil {
		return fmt.Errorf("it is built from its Go module, which the module proxy (GOPROXY) must have: %w", err)
	}
	return nil
}

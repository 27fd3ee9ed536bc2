package parts

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// synapseRequirements pins Synapse and all that it needs.
//
//go:embed synapse-requirements.txt
var synapseRequirements string

// Synapse returns the Python that has Synapse.
func (s *Store) Synapse(ctx context.Context) (python string, err error) {
	dir, err := s.ensure(ctx, part{
		name: "synapse", takes: time.Minute, limit: 15 * time.Minute, pin: synapseRequirements,
		fetch: s.fetchSynapse,
	})
	return filepath.Join(dir, "venv", "bin", "python"), err
}

func (s *Store) fetchSynapse(ctx context.Context, dir string) error {
	if err := need("python3", "Synapse is written in it"); err != nil {
		return err
	}
	requirements := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(requirements, []byte(synapseRequirements), 0o644); err != nil {
		return err
	}
	venv := filepath.Join(dir, "venv")
	if err := exec.CommandContext(ctx, "python3", "-c", "import venv, ensurepip").Run(); err != nil {
		return fmt.Errorf("python3 has no module venv (on Debian: apt-get install python3-venv)")
	}
	if err := s.run(ctx, dir, "synapse-venv", nil, "python3", "-m", "venv", venv); err != nil {
		return err
	}
	return s.run(ctx, dir, "synapse-pip", nil, filepath.Join(venv, "bin", "python"), "-m", "pip", "install",
		"--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:", "-r", requirements)
}

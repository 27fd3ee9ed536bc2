package town

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Lone is a ministry by itself, whose homeserver somebody else starts: one that
// lacks what those of the town have.
type Lone struct {
	*Ministry
}

// NewLone makes what a ministry at the loopback address needs, in an existing
// folder: the configuration of its Passerelle, and the registration that the
// homeserver may read.
func NewLone(ctx context.Context, dir, address, binary, caFile string) (*Lone, error) {
	m, err := newMinistry(dir, "lone", "lone", address)
	if err != nil {
		return nil, err
	}
	return &Lone{m}, m.configure(ctx, Options{Binary: binary}, "nobody.invalid", caFile)
}

// Place is where its homeserver has to be.
type Place struct {
	// Dir is an empty folder for it.
	Dir string
	// Address is a loopback address; the ports on it are free.
	Address                    string
	ClientPort, FederationPort int
	// Registration is the file of our registration.
	Registration string
}

// Place returns where its homeserver has to be.
func (l *Lone) Place() Place {
	return Place{filepath.Join(l.dir, "synapse"), l.address, l.ports.client, l.ports.federation, l.registration()}
}

// Configure changes the configuration: change gets its sections.
func (l *Lone) Configure(change func(section func(name string) map[string]any)) error {
	text, err := os.ReadFile(l.Config)
	if err != nil {
		return err
	}
	config := map[string]map[string]any{}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	change(func(name string) map[string]any {
		if config[name] == nil {
			config[name] = map[string]any{}
		}
		return config[name]
	})
	if text, err = yaml.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(l.Config, text, 0o600)
}

// StopPasserelle ends its Passerelle, if it runs.
func (l *Lone) StopPasserelle() error {
	if l.passerelle == nil {
		return nil
	}
	return l.passerelle.Stop(stopPatience)
}

// PasserelleLog is what its Passerelle has logged.
func (l *Lone) PasserelleLog() (string, error) {
	text, err := os.ReadFile(filepath.Join(l.dir, "passerelle.log"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

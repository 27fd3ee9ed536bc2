package town

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
)

// passerelle is one Passerelle with the SFU in it.
type passerelle struct {
	command *exec.Cmd
	log     string
	private string        // address of the private listener
	ended   chan struct{} // closed when the process is reaped
}

// startPasserelle starts the binary for one ministry. Its partner's users may
// join here, its own may do everything, everybody else nothing.
func startPasserelle(ctx context.Context, binary string, m *Ministry, partner string, caFile string) (*passerelle, error) {
	config := map[string]any{
		"server": map[string]any{
			"listen":         m.address + ":" + strconv.Itoa(m.ports.public),
			"private_listen": m.address + ":" + strconv.Itoa(m.ports.private),
			"public_url":     m.PublicURL,
			"data_dir":       filepath.Join(m.dir, "data"),
		},
		"log":      map[string]any{"format": "json"},
		"database": map[string]any{"path": filepath.Join(m.dir, "data", "passerelle.db")},
		"livekit": map[string]any{"embedded": map[string]any{
			"port": 0, "udp_port": 0, "tcp_port": 0, "node_ip": m.address, "loopback": true, "orphan_timeout": "5s",
		}},
		"federation": map[string]any{
			"rules": []any{
				map[string]any{"server": m.Homeserver.Name, "access": "create"},
				map[string]any{"server": partner, "access": "join"},
			},
			"allow_networks": []string{"127.0.0.0/8"},
			"ca_files":       []string{caFile},
		},
	}
	encoded, err := yaml.Marshal(config)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(m.dir, "passerelle.yaml")
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		return nil, err
	}
	p := &passerelle{
		log:     filepath.Join(m.dir, "passerelle.log"),
		private: "http://" + m.address + ":" + strconv.Itoa(m.ports.private),
		ended:   make(chan struct{}),
	}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.command = exec.Command(binary, "-config", file)
	p.command.Stdout, p.command.Stderr = log, log
	// When we die, Passerelle is asked to end, and ends its SFU.
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start it: %w", err)
	}
	go func() {
		defer close(p.ended)
		_ = p.command.Wait()
	}()
	if err := p.await(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *passerelle) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.private+"/readyz", nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended while it started:\n%s", p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("it does not become ready: %w\n%s", ctx.Err(), p.lastWords())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (p *passerelle) lastWords() string {
	data, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// stop ends Passerelle, which ends its SFU. One that had to be killed leaves
// an orphan, which ends itself after five seconds.
func (p *passerelle) stop() error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, 25 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := p.command.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop a Passerelle: %w", err)
		}
		select {
		case <-p.ended:
			return nil
		case <-time.After(step.wait):
		}
	}
	return errors.New("a Passerelle does not end")
}

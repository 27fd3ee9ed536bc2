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

	"passerelle/demo/process"
	"passerelle/demo/synapse"
)

func (m *Ministry) serverName() string { return synapse.ServerName(m.address, m.ports.federation) }

// registration is the file that its homeserver reads.
func (m *Ministry) registration() string { return filepath.Join(m.dir, "synapse", "passerelle.yaml") }

// configure writes the configuration of the ministry's Passerelle, and has the
// binary make the tokens and the registration. The partner's users may join
// here, its own may do everything, everybody else nothing.
func (m *Ministry) configure(ctx context.Context, binary, partner, caFile string) error {
	in := func(name string) string { return filepath.Join(m.dir, name) }
	config := map[string]any{
		"server": map[string]any{
			"listen":         m.address + ":" + strconv.Itoa(m.ports.public),
			"private_listen": m.address + ":" + strconv.Itoa(m.ports.private),
			"public_url":     m.PublicURL,
			"data_dir":       in("data"),
		},
		"log":      map[string]any{"format": "json"},
		"database": map[string]any{"path": filepath.Join(in("data"), "passerelle.db")},
		"livekit": map[string]any{"embedded": map[string]any{
			"port": 0, "udp_port": 0, "tcp_port": 0, "node_ip": m.address, "loopback": true, "orphan_timeout": "5s",
		}},
		"homeserver": map[string]any{
			"server_name":   m.serverName(),
			"url":           "http://" + m.address + ":" + strconv.Itoa(m.ports.client),
			"listen":        m.address + ":" + strconv.Itoa(m.ports.proxied),
			"as_token_file": in("as_token"),
			"hs_token_file": in("hs_token"),
		},
		"federation": map[string]any{
			"rules": []any{
				map[string]any{"server": m.serverName(), "access": "create"},
				map[string]any{"server": partner, "access": "join"},
			},
			"allow_networks": []string{"127.0.0.0/8"},
			"ca_files":       []string{caFile},
		},
	}
	encoded, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.Config, encoded, 0o600); err != nil {
		return err
	}
	said, err := exec.CommandContext(ctx, binary, "registration", "focus", "-config", m.Config, "-out", m.registration()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("registration of %s: %w\n%s", m.Name, err, said)
	}
	token, err := os.ReadFile(in("as_token"))
	m.ASToken = strings.TrimSpace(string(token))
	return err
}

// startPasserelle starts the binary for one ministry.
func startPasserelle(ctx context.Context, binary string, m *Ministry) (*process.Process, error) {
	// When we die, Passerelle is asked to end, and ends its SFU.
	p, err := process.Start("the Passerelle of "+m.Name, filepath.Join(m.dir, "passerelle.log"), syscall.SIGTERM,
		exec.Command(binary, "-config", m.Config))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ready := m.PrivateURL + "/readyz"
	if err := p.Await(ctx, func(ctx context.Context) bool { return answers(ctx, ready) }); err != nil {
		return nil, errors.Join(err, p.Stop(stopPatience))
	}
	return p, nil
}

// stopPatience is longer than Passerelle itself takes at most. One that had to
// be killed leaves an orphan, which ends itself after five seconds.
const stopPatience = 25 * time.Second

func answers(ctx context.Context, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

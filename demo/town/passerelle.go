package town

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"passerelle/demo/process"
)

// startPasserelle starts the binary for one ministry. Its partner's users may
// join here, its own may do everything, everybody else nothing.
func startPasserelle(ctx context.Context, binary string, m *Ministry, partner string, caFile string) (*process.Process, error) {
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
		// Not by name, as others do: its federation port, which is in the name
		// here, does not say where its client API is.
		"homeserver": map[string]any{"server_name": m.Homeserver.Name, "url": m.Homeserver.ClientURL},
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
	// When we die, Passerelle is asked to end, and ends its SFU.
	p, err := process.Start("the Passerelle of "+m.Name, filepath.Join(m.dir, "passerelle.log"), syscall.SIGTERM,
		exec.Command(binary, "-config", file))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ready := "http://" + m.address + ":" + strconv.Itoa(m.ports.private) + "/readyz"
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

package town

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
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

// ServerName is the name of its homeserver.
func (m *Ministry) ServerName() string { return synapse.ServerName(m.address, m.ports.federation) }

// registration is the file that its homeserver reads.
func (m *Ministry) registration() string { return filepath.Join(m.dir, "synapse", "passerelle.yaml") }

// configure writes the configuration of the ministry's Passerelle, and has the
// binary make the tokens and the registration. The partner's users may join
// here, its own may do everything, everybody else nothing. The SFU's ports are
// fixed, so that a Passerelle that died finds its SFU again.
func (m *Ministry) configure(ctx context.Context, o Options, partner, caFile string) error {
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
			"port": m.ports.sfu, "udp_port": m.ports.media, "tcp_port": 0, "node_ip": m.address, "loopback": true, "orphan_timeout": "20s",
		}},
		"homeserver": map[string]any{
			"server_name":   m.ServerName(),
			"url":           "http://" + m.address + ":" + strconv.Itoa(m.ports.client),
			"listen":        m.address + ":" + strconv.Itoa(m.ports.proxied),
			"as_token_file": in("as_token"),
			"hs_token_file": in("hs_token"),
		},
		"federation": map[string]any{
			"rules": []any{
				map[string]any{"server": m.ServerName(), "access": "create"},
				map[string]any{"server": partner, "access": "join"},
			},
			"allow_networks": []string{"127.0.0.0/8"},
			"ca_files":       []string{caFile},
		},
	}
	if o.Unlimited {
		config["focus"] = map[string]any{"limits": map[string]any{"address": 0, "server": 0, "user": 0}}
	}
	encoded, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.Config, encoded, 0o600); err != nil {
		return err
	}
	said, err := exec.CommandContext(ctx, o.Binary, "registration", "focus", "-config", m.Config, "-out", m.registration()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("registration of %s: %w\n%s", m.Name, err, said)
	}
	m.binary = o.Binary
	for name, into := range map[string]*string{"as_token": &m.ASToken, "hs_token": &m.HSToken} {
		token, err := os.ReadFile(in(name))
		if err != nil {
			return err
		}
		*into = strings.TrimSpace(string(token))
	}
	return nil
}

// StartPasserelle starts the ministry's Passerelle and returns when it is
// ready for calls. Its log goes on where an earlier one ended.
func (m *Ministry) StartPasserelle(ctx context.Context) error {
	_ = m.held.Close() // it is, from the second time on
	// When we die, Passerelle is asked to end, and ends its SFU.
	p, err := process.Start("the Passerelle of "+m.Name, filepath.Join(m.dir, "passerelle.log"), syscall.SIGTERM,
		exec.Command(m.binary, "-config", m.Config))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ready := m.PrivateURL + "/readyz"
	if err := p.AwaitAnswer(ctx, http.DefaultClient, ready); err != nil {
		return errors.Join(err, p.Stop(stopPatience))
	}
	m.passerelle = p
	return nil
}

// KillPasserelle ends the ministry's Passerelle as kill -9 does; its SFU goes
// on. StartPasserelle starts the next.
func (m *Ministry) KillPasserelle() error { return m.passerelle.Kill() }

// KillSFU ends the ministry's SFU as kill -9 does and returns when.
func (m *Ministry) KillSFU() (time.Time, error) {
	pid, err := m.sfu()
	if err != nil {
		return time.Time{}, err
	}
	at := time.Now()
	return at, syscall.Kill(pid, syscall.SIGKILL)
}

// SFU is the API of a ministry's SFU, with the key that Passerelle shares with it.
type SFU struct {
	URL, Key, Secret string
}

// SFU returns how to speak to the ministry's SFU without its Passerelle.
func (m *Ministry) SFU() (SFU, error) {
	data, err := os.ReadFile(filepath.Join(m.dir, "data", "livekit.key"))
	if err != nil {
		return SFU{}, err
	}
	key, secret, ok := strings.Cut(strings.TrimSpace(string(data)), ": ")
	if !ok {
		return SFU{}, errors.New("the key of the SFU is not as it should be")
	}
	return SFU{"http://127.0.0.1:" + strconv.Itoa(m.ports.sfu), key, secret}, nil
}

// Addresses are where clients reach the ministry's Passerelle, over TCP, and
// its SFU's media, over UDP; and where the socket for the latter really is,
// since an SFU on loopback opens none on the address that it tells.
func (m *Ministry) Addresses() (signalling, media, socket string) {
	media = strconv.Itoa(m.ports.media)
	return m.address + ":" + strconv.Itoa(m.ports.public), m.address + ":" + media, "127.0.0.1:" + media
}

// sfu is the process ID of the SFU, as it says itself to whoever connects.
func (m *Ministry) sfu() (int, error) {
	conn, err := net.DialTimeout("unix", filepath.Join(m.dir, "data", "sfu.sock"), 2*time.Second)
	if err != nil {
		return 0, fmt.Errorf("the SFU of %s: %w", m.Name, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return 0, err
	}
	var hello struct{ PID int }
	if err := json.NewDecoder(conn).Decode(&hello); err != nil || hello.PID <= 1 {
		return 0, fmt.Errorf("the SFU of %s says nothing that we understand: %w", m.Name, err)
	}
	return hello.PID, nil
}

// stopPatience is longer than Passerelle itself takes at most. One that had to
// be killed leaves an orphan, which ends itself after twenty seconds.
const stopPatience = 25 * time.Second

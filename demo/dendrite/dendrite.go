// Package dendrite starts a real Dendrite for the tests: a homeserver without
// delayed events, sticky events and everything else that newer calls use, which
// older clients call with all the same.
package dendrite

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"passerelle/demo/process"
	"passerelle/demo/synapse"
)

// Options say how to start a Dendrite.
type Options struct {
	// Binary is its program.
	Binary string
	// Dir is an existing, empty folder for everything it writes.
	Dir string
	// Address is a loopback address; the ports on it are free.
	Address                    string
	ClientPort, FederationPort int
	Authority                  *synapse.Authority
	// AppServices are files with registrations.
	AppServices []string
}

// Server is one Dendrite.
type Server struct {
	// Name is its server name: address and federation port.
	Name string
	// ClientURL is the base of its client-server API.
	ClientURL string

	secret  string
	process *process.Process
}

// startTimeout bounds a start; on an idle machine it takes two seconds.
const startTimeout = 90 * time.Second

// Start starts a Dendrite and returns when it answers its users. It ends with
// Stop, or when this process dies.
func Start(ctx context.Context, o Options) (*Server, error) {
	client := net.JoinHostPort(o.Address, strconv.Itoa(o.ClientPort))
	s := &Server{
		Name:      synapse.ServerName(o.Address, o.FederationPort),
		ClientURL: "http://" + client,
		secret:    rand.Text(),
	}
	certFile, keyFile, err := o.Authority.Issue(o.Dir, o.Address)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", s.Name, err)
	}
	config, err := s.writeConfig(o)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", s.Name, err)
	}
	command := exec.Command(o.Binary, "-config", config, "-http-bind-address", client,
		"-https-bind-address", s.Name, "-tls-cert", certFile, "-tls-key", keyFile)
	command.Dir = o.Dir
	command.Env = append(os.Environ(), "SSL_CERT_FILE="+o.Authority.File)
	s.process, err = process.Start("the homeserver "+s.Name, filepath.Join(o.Dir, "dendrite.log"), syscall.SIGKILL, command)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.process.AwaitAnswer(ctx, http.DefaultClient, s.ClientURL+"/_matrix/client/versions"); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// Register makes an account and signs it in.
func (s *Server) Register(ctx context.Context, localpart string) (*synapse.User, error) {
	return synapse.RegisterAt(ctx, s.ClientURL, s.secret, localpart, localpart)
}

// Stop ends the server and returns when it is gone.
func (s *Server) Stop() error { return s.process.Stop(10 * time.Second) }

// writeConfig writes its configuration and its signing key.
func (s *Server) writeConfig(o Options) (string, error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	seed := make([]byte, 32)
	if _, err := rand.Read(seed); err != nil {
		return "", err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "MATRIX PRIVATE KEY", Headers: map[string]string{"Key-ID": "ed25519:test"}, Bytes: seed})
	if err := os.WriteFile(in("signing.pem"), key, 0o600); err != nil {
		return "", err
	}
	database := func(name string) map[string]any {
		return map[string]any{"connection_string": "file:" + in(name+".db")}
	}
	config := map[string]any{
		"version": 2,
		"global": map[string]any{
			"server_name": s.Name,
			"private_key": in("signing.pem"),
			"cache":       map[string]any{"max_size_estimated": "64mb", "max_age": "1h"},
			// Its own are servers on the Internet.
			"trusted_third_party_id_servers": []string{},
			"report_stats":                   map[string]any{"enabled": false},
			"jetstream":                      map[string]any{"in_memory": true, "storage_path": in("jetstream"), "topic_prefix": "Dendrite"},
		},
		"app_service_api": map[string]any{"config_files": o.AppServices},
		"client_api": map[string]any{
			"registration_disabled": true, "guests_disabled": true,
			"registration_shared_secret": s.secret,
			"rate_limiting":              map[string]any{"enabled": false},
		},
		"federation_api": map[string]any{
			"database":         database("federation"),
			"key_perspectives": []any{}, // its default asks a server on the Internet
			"deny_networks":    []string{},
			"allow_networks":   []string{"127.0.0.0/8"},
		},
		"key_server":  map[string]any{"database": database("key")},
		"media_api":   map[string]any{"database": database("media"), "base_path": in("media")},
		"mscs":        map[string]any{"database": database("mscs")},
		"relay_api":   map[string]any{"database": database("relay")},
		"room_server": map[string]any{"database": database("room")},
		"sync_api": map[string]any{"database": database("sync"),
			"search": map[string]any{"enabled": false, "index_path": in("search")}},
		"user_api": map[string]any{"account_database": database("user"), "bcrypt_cost": 4},
		"logging":  []any{map[string]any{"type": "std", "level": "warn"}},
	}
	encoded, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	return in("dendrite.yaml"), os.WriteFile(in("dendrite.yaml"), encoded, 0o600)
}

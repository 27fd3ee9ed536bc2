package synapse

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
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

	"passerelle/demo/process"
)

// Options say how to start a Synapse.
type Options struct {
	// Python has Synapse installed.
	Python string
	// Dir is an existing, empty folder for everything it writes.
	Dir string
	// Address is a loopback address; the ports on it are free.
	Address                    string
	ClientPort, FederationPort int
	Authority                  *Authority
	Transports                 []Transport
	// Bare switches nothing on that Synapse does not by itself, announces no
	// transports, and keeps its limits.
	Bare bool
	// StrangersLimited keeps Synapse's own limit on how often delayed events are
	// managed; all other limits are lifted.
	StrangersLimited bool
	// DefaultLimits keeps every one of Synapse's own limits; users can be freed of
	// theirs one by one (see [User.Unlimit]).
	DefaultLimits bool
	// Registrations are application services, by the content of their files.
	Registrations []map[string]any
	// AppServices are files with registrations.
	AppServices []string
}

// Server is one Synapse.
type Server struct {
	// Name is its server name: address and federation port.
	Name string
	// ClientURL is the base of its client-server API.
	ClientURL string

	federationURL string
	authority     *Authority
	secret        string
	python, dir   string
	process       *process.Process
}

// ServerName is the name of the Synapse at that address and federation port.
func ServerName(address string, port int) string {
	return net.JoinHostPort(address, strconv.Itoa(port))
}

// configFile is in the server's folder.
const configFile = "homeserver.yaml"

// startTimeout bounds a start; on an idle machine it takes two seconds.
const startTimeout = 90 * time.Second

// Start starts a Synapse and returns when it answers users and servers. It
// ends with Stop, or when this process dies.
func Start(ctx context.Context, o Options) (*Server, error) {
	s := &Server{
		Name:   ServerName(o.Address, o.FederationPort),
		python: o.Python, dir: o.Dir,
		ClientURL:     "http://" + net.JoinHostPort(o.Address, strconv.Itoa(o.ClientPort)),
		federationURL: "https://" + net.JoinHostPort(o.Address, strconv.Itoa(o.FederationPort)),
		authority:     o.Authority,
		secret:        rand.Text(),
	}
	certFile, keyFile, err := o.Authority.Issue(o.Dir, o.Address)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", s.Name, err)
	}
	config, err := s.writeConfig(o, certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", s.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, o.Python, "-m", "synapse.app.homeserver", "-c", config, "--generate-keys").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("signing key of %s: %w\n%s", s.Name, err, out)
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// start starts the process and returns when it answers.
func (s *Server) start(ctx context.Context) (err error) {
	command := exec.Command(s.python, "-m", "synapse.app.homeserver", "-c", filepath.Join(s.dir, configFile))
	command.Dir = s.dir
	s.process, err = process.Start("the homeserver "+s.Name, filepath.Join(s.dir, "synapse.log"), syscall.SIGKILL, command)
	if err != nil {
		return err
	}
	if err := s.await(ctx); err != nil {
		return errors.Join(err, s.Stop())
	}
	return nil
}

// Restart starts a server again that was stopped.
func (s *Server) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.start(ctx)
}

// await returns once both listeners answer.
func (s *Server) await(ctx context.Context) error {
	pem, err := os.ReadFile(s.authority.File)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	for _, address := range []string{s.ClientURL + "/_matrix/client/versions", s.federationURL + "/_matrix/federation/v1/version"} {
		if err := s.process.AwaitAnswer(ctx, client, address); err != nil {
			return err
		}
	}
	return nil
}

// PID is the number of the server's process.
func (s *Server) PID() int { return s.process.PID() }

// Stop ends the server and returns when it is gone.
func (s *Server) Stop() error { return s.process.Stop(10 * time.Second) }

package crowd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"passerelle/demo/process"
	"passerelle/demo/synapse"
)

// address is the loopback address of all servers.
const address = "127.0.0.1"

// place is one homeserver with its Passerelle and the SFU that is pretended.
type place struct {
	dir, binary string
	// public and private are the addresses of Passerelle.
	public, private string
	homeserver      *synapse.Server
	sfu             *sfu
	passerelle      *process.Process

	cleanups []func() error // run last to first
}

// open starts all of it.
func open(ctx context.Context, o Options) (_ *place, err error) {
	p := &place{binary: o.Binary}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.dir, err = os.MkdirTemp("", "passerelle-crowd-"); err != nil {
		return nil, err
	}
	p.cleanups = append(p.cleanups, func() error { return os.RemoveAll(p.dir) })
	ports, err := process.FreePorts(address, 5)
	if err != nil {
		return nil, err
	}
	client, federation, public, private, homeserver := ports[0], ports[1], ports[2], ports[3], ports[4]
	p.public, p.private = fmt.Sprintf("http://%s:%d", address, public), fmt.Sprintf("http://%s:%d", address, private)
	if p.sfu, err = startSFU(p.private+"/sfu_webhook", o.Seed); err != nil {
		return nil, err
	}
	p.cleanups = append(p.cleanups, p.sfu.close)
	authority, err := synapse.NewAuthority(p.dir)
	if err != nil {
		return nil, err
	}
	options := synapse.Options{
		Python: o.Python, Dir: filepath.Join(p.dir, "synapse"), Address: address, ClientPort: client, FederationPort: federation,
		Authority: authority, DefaultLimits: true,
		Transports: []synapse.Transport{{Type: "livekit", LiveKitServiceURL: p.public, URL: "ws" + p.public[len("http"):]}},
	}
	if err := os.Mkdir(options.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := p.configure(o.Stranger, public, private, homeserver, options); err != nil {
		return nil, err
	}
	if !o.Stranger {
		// As an operator does.
		file := filepath.Join(options.Dir, "passerelle.yaml")
		said, err := exec.CommandContext(ctx, o.Binary, "registration", "focus", "-config", p.config(), "-out", file).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("registration: %w\n%s", err, said)
		}
		options.AppServices = []string{file}
	}
	if p.homeserver, err = synapse.Start(ctx, options); err != nil {
		return nil, err
	}
	p.cleanups = append(p.cleanups, p.homeserver.Stop)
	p.cleanups = append(p.cleanups, func() error {
		if p.passerelle == nil {
			return nil
		}
		return p.passerelle.Stop(25 * time.Second)
	})
	return p, p.start(ctx)
}

func (p *place) config() string { return filepath.Join(p.dir, "passerelle.yaml") }

// configure writes Passerelle's configuration. A stranger has no token for the
// homeserver, and so cannot ask it who is in a room either.
func (p *place) configure(stranger bool, public, private, listen int, o synapse.Options) error {
	in := func(name string) string { return filepath.Join(p.dir, name) }
	at := func(port int) string { return fmt.Sprintf("%s:%d", address, port) }
	name := synapse.ServerName(o.Address, o.FederationPort)
	homeserver := map[string]any{"server_name": name, "url": "http://" + at(o.ClientPort)}
	focus := map[string]any{"membership": "unverified"}
	if !stranger {
		homeserver["listen"] = at(listen)
		homeserver["as_token_file"], homeserver["hs_token_file"] = in("as_token"), in("hs_token")
		focus["membership"] = "required"
	}
	encoded, err := yaml.Marshal(map[string]any{
		"server": map[string]any{
			"listen": at(public), "private_listen": at(private), "public_url": p.public, "data_dir": in("data"),
		},
		"log":        map[string]any{"format": "json"},
		"database":   map[string]any{"path": filepath.Join(in("data"), "passerelle.db")},
		"livekit":    map[string]any{"mode": "external", "url": p.sfu.url, "key": sfuKey, "secret": sfuSecret},
		"focus":      focus,
		"homeserver": homeserver,
		"federation": map[string]any{
			"rules":          []any{map[string]any{"server": name, "access": "create"}},
			"allow_networks": []string{"127.0.0.0/8"},
			"ca_files":       []string{o.Authority.File},
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(p.config(), encoded, 0o600)
}

// start starts Passerelle and returns when it is ready.
func (p *place) start(ctx context.Context) error {
	started, err := process.Start("Passerelle", filepath.Join(p.dir, "passerelle.log"), syscall.SIGTERM,
		exec.Command(p.binary, "-config", p.config()))
	if err != nil {
		return err
	}
	p.passerelle = started
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return started.AwaitAnswer(ctx, http.DefaultClient, p.private+"/readyz")
}

// replace ends Passerelle as kill -9 does, and starts the next.
func (p *place) replace(ctx context.Context) error {
	if err := p.passerelle.Kill(); err != nil {
		return err
	}
	return p.start(ctx)
}

// keepLogs copies what the servers said to a folder.
func (p *place) keepLogs(dir string) error {
	failures := []error{os.MkdirAll(dir, 0o755)}
	for _, log := range []string{filepath.Join(p.dir, "synapse", "synapse.log"), filepath.Join(p.dir, "passerelle.log")} {
		data, err := os.ReadFile(log)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "crowd."+filepath.Base(log)), data, 0o644)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

// close ends and removes everything.
func (p *place) close() error {
	var failures []error
	for i := len(p.cleanups) - 1; i >= 0; i-- {
		failures = append(failures, p.cleanups[i]())
	}
	return errors.Join(failures...)
}

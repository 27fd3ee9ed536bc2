// Package town is the demonstration's world on one machine: two ministries,
// each with a real Synapse, a Passerelle with its SFU, a host page for Element
// Call and one member of staff, and a room that both share. It knows nothing
// of browsers. Everything it starts and writes is gone when Stop returns.
package town

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/host"
	"passerelle/demo/process"
	"passerelle/demo/synapse"
)

// Options say what to build the town from.
type Options struct {
	// Python has Synapse; Web is the built host page, empty for none; Binary is
	// Passerelle.
	Python, Web, Binary string
	// Mode is how Element Call says that somebody is in the call.
	Mode host.Mode
	// Encrypted makes the shared room, and so the call, encrypted.
	Encrypted bool
	// LowQuality is for machines on which both browsers run.
	LowQuality bool
	// Unlimited lifts Passerelle's limits on how often users ask.
	Unlimited bool
	// AppServices says which application services a ministry's homeserver has
	// beside Passerelle, by the content of their files; nil is none.
	AppServices func(*Ministry) []map[string]any
}

// Ministry is one ministry.
type Ministry struct {
	// Name is for people.
	Name       string
	Homeserver *synapse.Server
	// User is its member of staff, on the device of the host page, where
	// Session names the account; Watcher is the same user on another device.
	User, Watcher *synapse.User
	Session       string
	// PublicURL is its Passerelle's; HostURL that of its host page, empty
	// without one.
	PublicURL, HostURL string
	// PrivateURL is where its Passerelle shows its metrics.
	PrivateURL string
	// ProxiedURL is where its homeserver reaches its Passerelle.
	ProxiedURL string
	// Config is the file of its Passerelle's configuration, ASToken what that
	// may ask its homeserver with, and HSToken what it knows that one by.
	Config, ASToken, HSToken string

	address    string
	dir        string
	ports      ports
	held       net.PacketConn // keeps the media port until its Passerelle first starts
	binary     string         // Passerelle's
	passerelle *process.Process
}

// Link is where its member of staff calls.
func (m *Ministry) Link(lang string, auto bool) string {
	return host.Link(m.HostURL, m.Session, lang, auto)
}

// Town is the two ministries and their room.
type Town struct {
	Interieur, Finances *Ministry
	Room                id.RoomID
	// Encrypted: the room is, and so must be what is sent in its call.
	Encrypted bool
	// HiddenMembers: who is in the call is encrypted, so that no server sees it.
	HiddenMembers bool

	cleanups []func() error // run last to first
}

// Start builds the town. When it fails, everything is taken down again.
func Start(ctx context.Context, o Options) (_ *Town, err error) {
	t := &Town{Encrypted: o.Encrypted, HiddenMembers: o.Encrypted && o.Mode == host.Matrix2}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Stop())
		}
	}()
	dir, err := os.MkdirTemp("", "passerelle-town-")
	if err != nil {
		return nil, err
	}
	t.cleanups = append(t.cleanups, func() error { return os.RemoveAll(dir) })
	if t.Interieur, err = newMinistry(dir, "interieur", "Ministère de l’Intérieur", "127.0.0.31"); err != nil {
		return nil, err
	}
	if t.Finances, err = newMinistry(dir, "finances", "Ministère des Finances", "127.0.0.32"); err != nil {
		return nil, err
	}
	t.Interieur.Session, t.Finances.Session = "agnes", "bruno"
	authority, err := synapse.NewAuthority(dir)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context, Options, *synapse.Authority) error{
		t.register, t.startHomeservers, t.startPasserelles, t.settle, t.openHostPages,
	} {
		if err := step(ctx, o, authority); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Stop ends and removes everything, last started first.
func (t *Town) Stop() error {
	var failures []error
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		failures = append(failures, t.cleanups[i]())
	}
	t.cleanups = nil
	return errors.Join(failures...)
}

// KeepLogs copies what the servers said, and what Passerelle has in its
// database, to a folder, to look into what went wrong.
func (t *Town) KeepLogs(dir string) error {
	var failures []error
	for _, m := range []*Ministry{t.Interieur, t.Finances} {
		for _, log := range []string{
			filepath.Join(m.dir, "synapse", "synapse.log"), filepath.Join(m.dir, "passerelle.log"),
			filepath.Join(m.dir, "data", "passerelle.db"), filepath.Join(m.dir, "data", "passerelle.db-wal"),
		} {
			data, err := os.ReadFile(log)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, m.Session+"."+filepath.Base(log)), data, 0o644)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				failures = append(failures, err)
			}
		}
	}
	return errors.Join(failures...)
}

func newMinistry(dir, short, name, address string) (*Ministry, error) {
	m := &Ministry{Name: name, address: address, dir: filepath.Join(dir, short)}
	if err := os.MkdirAll(filepath.Join(m.dir, "synapse"), 0o700); err != nil {
		return nil, err
	}
	var err error
	if m.ports, m.held, err = freePorts(address); err != nil {
		return nil, err
	}
	m.PublicURL = "http://" + net.JoinHostPort(address, strconv.Itoa(m.ports.public))
	m.PrivateURL = "http://" + net.JoinHostPort(address, strconv.Itoa(m.ports.private))
	m.ProxiedURL = "http://" + net.JoinHostPort(address, strconv.Itoa(m.ports.proxied))
	m.Config = filepath.Join(m.dir, "passerelle.yaml")
	return m, nil
}

// register has each Passerelle write its registration, as an operator does.
func (t *Town) register(ctx context.Context, o Options, authority *synapse.Authority) error {
	for _, pair := range [][2]*Ministry{{t.Interieur, t.Finances}, {t.Finances, t.Interieur}} {
		if err := pair[0].configure(ctx, o, pair[1].ServerName(), authority.File); err != nil {
			return err
		}
	}
	return nil
}

func (t *Town) startHomeservers(ctx context.Context, o Options, authority *synapse.Authority) error {
	starting, ctx := errgroup.WithContext(ctx)
	for _, m := range []*Ministry{t.Interieur, t.Finances} {
		var more []map[string]any
		if o.AppServices != nil {
			more = o.AppServices(m)
		}
		starting.Go(func() (err error) {
			m.Homeserver, err = synapse.Start(ctx, synapse.Options{
				Python: o.Python, Dir: filepath.Join(m.dir, "synapse"), Address: m.address,
				ClientPort: m.ports.client, FederationPort: m.ports.federation, Authority: authority,
				AppServices: []string{m.registration()}, Registrations: more,
				// Passerelle shows a token, so the limit on strangers is not its own.
				StrangersLimited: true,
				Transports: []synapse.Transport{{
					Type: "livekit", LiveKitServiceURL: m.PublicURL,
					URL: "ws" + m.PublicURL[len("http"):],
				}},
			})
			return err
		})
	}
	err := starting.Wait()
	for _, m := range []*Ministry{t.Interieur, t.Finances} {
		if m.Homeserver != nil {
			t.cleanups = append(t.cleanups, m.Homeserver.Stop)
		}
	}
	return err
}

func (t *Town) startPasserelles(ctx context.Context, _ Options, _ *synapse.Authority) error {
	starting, ctx := errgroup.WithContext(ctx)
	for _, m := range []*Ministry{t.Interieur, t.Finances} {
		starting.Go(func() error { return m.StartPasserelle(ctx) })
	}
	err := starting.Wait()
	for _, m := range []*Ministry{t.Interieur, t.Finances} {
		if m.passerelle != nil {
			t.cleanups = append(t.cleanups, func() error { return m.passerelle.Stop(stopPatience) })
		}
	}
	return err
}

// settle registers the staff and makes the room that they share.
func (t *Town) settle(ctx context.Context, o Options, _ *synapse.Authority) (err error) {
	if t.Interieur.User, err = t.Interieur.Homeserver.Register(ctx, "agnes", "Agnès Martin (Intérieur)"); err != nil {
		return err
	}
	if t.Finances.User, err = t.Finances.Homeserver.Register(ctx, "bruno", "Bruno Petit (Finances)"); err != nil {
		return err
	}
	t.Room, err = t.Interieur.User.CreateCallRoom(ctx, "Réunion interministérielle", o.Encrypted, t.Finances.User.UserID)
	if err != nil {
		return err
	}
	if err = t.Finances.User.JoinInvited(ctx, t.Room, t.Interieur.Homeserver.Name); err != nil {
		return err
	}
	for _, m := range []*Ministry{t.Interieur, t.Finances} {
		if m.Watcher, err = m.Homeserver.Watcher(ctx, m.User); err != nil {
			return err
		}
	}
	return nil
}

// openHostPages serves each ministry's host page.
func (t *Town) openHostPages(_ context.Context, o Options, _ *synapse.Authority) error {
	if o.Web == "" {
		return nil
	}
	for _, m := range []*Ministry{t.Interieur, t.Finances} {
		handler, err := host.Handler(host.Options{
			Dist: o.Web, Mode: o.Mode, LowQuality: o.LowQuality,
			Sessions: map[string]host.Session{m.Session: {
				Homeserver: m.Homeserver.ClientURL, UserID: m.User.UserID.String(), DeviceID: m.User.DeviceID.String(),
				AccessToken: m.User.AccessToken, RoomID: t.Room.String(), Ministry: m.Name,
			}},
		})
		if err != nil {
			return err
		}
		listener, err := net.Listen("tcp", net.JoinHostPort(m.address, strconv.Itoa(m.ports.host)))
		if err != nil {
			return err
		}
		m.HostURL = "http://" + listener.Addr().String()
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		t.cleanups = append(t.cleanups, func() error {
			err := server.Close()
			<-served
			return err
		})
	}
	return nil
}

// ports of one ministry, on its own loopback address, but for the last two: the
// SFU's API listens on 127.0.0.1, its media port on every address.
type ports struct {
	client, federation, public, private, proxied, host int
	sfu, media                                         int
}

// freePorts finds ports that nobody uses now. It holds the media port, which is
// one of those that any client gets, until held is closed.
func freePorts(address string) (p ports, held net.PacketConn, err error) {
	own, err := process.FreePorts(address, 6)
	if err != nil {
		return p, nil, err
	}
	api, err := process.FreePorts("127.0.0.1", 1)
	if err != nil {
		return p, nil, err
	}
	p = ports{client: own[0], federation: own[1], public: own[2], private: own[3], proxied: own[4], host: own[5], sfu: api[0]}
	if held, err = net.ListenPacket("udp", ":0"); err != nil {
		return p, nil, fmt.Errorf("no free UDP port: %w", err)
	}
	p.media = held.LocalAddr().(*net.UDPAddr).Port
	return p, held, nil
}

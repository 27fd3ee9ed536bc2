// Package app is the whole program, without its flags and signals: it builds
// every part, joins them, and starts, reloads and stops them. It is the only
// package that knows all others, and nothing imports it but main and tests.
//
// The order of a start is the order of the lines in [App.Start]; everything is
// stopped in the reverse order.
package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus"
	"passerelle/focus/door"
	"passerelle/focus/homeserver"
	"passerelle/focus/leave"
	"passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
	"passerelle/focus/signed"
	"passerelle/migrations"
)

// webhookPath is where the SFU reports, on the private listener.
const webhookPath = "/sfu_webhook"

// Options are what an App needs.
type Options struct {
	Config *config.Config
	// Load reads the configuration again, for a reload.
	Load func() (*config.Config, error)
	Log  zerolog.Logger
	// Version stands on the metric passerelle_build_info.
	Version string
}

// App is the program.
type App struct {
	options  Options
	log      zerolog.Logger
	life     *lifecycle
	registry *prometheus.Registry
	reloads  reloadMetrics
	config   atomic.Pointer[config.Config]

	publicListener  net.Listener
	privateListener net.Listener
	proxiedListener net.Listener // nil when it is off

	// synced is the same database: what is committed there stays, even when the
	// power fails.
	database, synced *dbutil.Database
	hold             *migrations.Hold // nil with SQLite
	policy           *federation.Policy
	limits           *federation.Limits
	openID           *federation.OpenID
	sfu              sfuServer
	rooms            *livekit.Rooms
	sfus             map[string]sfuEntry
	tickets          *livekit.Verifier
	tokens           *livekit.Tokens
	home             *homeserver.Client     // nil without a homeserver of our own
	members          *homeserver.Membership // nil without a token for it
	leaves           *leave.Leaves
	focus            *focus.Service
	door             *door.Door
	webhook          *livekit.Webhook

	signed *signed.Listener // nil unless it is on

	dropInServers *dropInServers // nil unless it is a drop-in
}

// New builds the program and binds its listeners. It serves nothing yet. When
// it fails, what was built is taken down again.
func New(ctx context.Context, o Options) (_ *App, err error) {
	a := &App{options: o, log: o.Log, life: newLifecycle(o.Log), registry: prometheus.NewRegistry()}
	a.config.Store(o.Config)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.life.stop(context.WithoutCancel(ctx)))
		}
	}()
	a.registerProcess()
	builds := []func(context.Context, *config.Config) error{
		a.listen, a.openDatabase, a.buildFederation, a.buildSFU, a.buildHomeserver, a.buildLeaves, a.buildFocus, a.buildSigned,
	}
	if o.Config.DropIn != nil {
		builds = a.dropInBuilds()
	}
	for _, build := range builds {
		if err := build(ctx, o.Config); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *App) registerProcess() {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "passerelle_build_info",
		Help:        "Always 1; its label says which version runs.",
		ConstLabels: prometheus.Labels{"version": a.options.Version},
	})
	build.Set(1)
	a.registry.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.reloads = newReloadMetrics(a.registry)
}

// listen binds the listeners before anything else, so that a port that is
// taken is known before a child is started or a database touched.
func (a *App) listen(ctx context.Context, c *config.Config) error {
	var lc net.ListenConfig
	for _, l := range []struct {
		key, address string
		into         *net.Listener
	}{
		{"server.listen", c.Server.Listen, &a.publicListener},
		{"server.private_listen", c.Server.PrivateListen, &a.privateListener},
		{"homeserver.listen", c.Homeserver.Listen, &a.proxiedListener},
	} {
		if l.address == "" {
			continue
		}
		listener, err := lc.Listen(ctx, "tcp", l.address)
		if err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%w (is another Passerelle running?)", err)
			}
			return fmt.Errorf("%s: %w", l.key, err)
		}
		*l.into = listener
		a.life.onStop(l.key, func(context.Context) error {
			// Its HTTP server has closed it already, if that ever started.
			if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return nil
}

// holdPatience is how long a start waits for the process before, whose
// connections PostgreSQL may not have missed yet.
const holdPatience = 10 * time.Second

// syncedConns is how many connections wait for the disk. SQLite has one writer.
const syncedConns = 2

func (a *App) openDatabase(ctx context.Context, c *config.Config) (err error) {
	log := a.log.With().Str("component", "database").Logger()
	if c.Database.InMemory() {
		log = log.Level(zerolog.WarnLevel) // it is made anew each time
	}
	options := migrations.Options{
		Type:         c.Database.Type,
		Path:         c.Database.Path,
		URI:          c.Database.URI.Reveal(),
		MaxOpenConns: c.Database.MaxOpenConns,
		Log:          log,
	}
	if options.Type == migrations.SQLite && options.Path != "" {
		unlock, err := migrations.Lock(options.Path)
		if err != nil {
			return err
		}
		a.life.onStop("lock of the database", func(context.Context) error { return unlock() })
	}
	if options.Type == migrations.Postgres {
		if a.hold, err = migrations.HoldPostgres(ctx, migrations.HoldOptions{
			URI: options.URI, Alone: c.LiveKit.Mode == "embedded", Patience: holdPatience, Log: log,
		}); err != nil {
			return err
		}
		a.life.onStop("hold of the database", func(context.Context) error { a.hold.Release(); return nil })
	}
	if a.database, err = migrations.Open(ctx, options); err != nil {
		return err
	}
	a.life.onStop("database", func(context.Context) error { return a.database.Close() })
	a.synced = a.database
	if options.Type != migrations.SQLite || options.Path == "" {
		return nil
	}
	options.Synced, options.MaxOpenConns = true, syncedConns
	if a.synced, err = migrations.Open(ctx, options); err != nil {
		return err
	}
	a.life.onStop("synced database", func(context.Context) error { return a.synced.Close() })
	return nil
}

func (a *App) buildFederation(_ context.Context, c *config.Config) (err error) {
	a.limits = federation.NewLimits(c.Focus.Limits)
	if a.policy, err = federation.NewPolicy(c.Federation.Rules); err != nil {
		return err
	}
	a.openID, err = federation.NewOpenID(federation.Options{
		Config:     c.Federation,
		Policy:     a.policy,
		Log:        a.log.With().Str("component", "federation").Logger(),
		Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.life.onStop("federation", func(context.Context) error { a.openID.Close(); return nil })
	return nil
}

func (a *App) buildSFU(_ context.Context, c *config.Config) (err error) {
	if a.sfu, err = a.newSFU(c); err != nil {
		return err
	}
	key, secret := a.sfu.Key()
	a.rooms, err = livekit.NewRooms(livekit.RoomsOptions{URL: a.sfu.APIURL(), Key: key, Secret: secret.Reveal()})
	if err != nil {
		return err
	}
	own := livekit.NewTokens(key, secret.Reveal())
	gated, err := livekit.NewDoorTokens(key, secret.Reveal())
	if err != nil {
		return err
	}
	a.sfus = map[string]sfuEntry{c.LiveKit.Mode: {server: a.sfu, tokens: own}}
	// Whatever clients are given now, they may still have what they were given
	// before the configuration changed, and what the SFU made for them.
	a.tickets = livekit.NewVerifier(gated, own)
	a.tokens = gated
	if c.LiveKit.Signalling == "direct" {
		a.tokens = own
	}
	return nil
}

// signallingURL is where clients are sent.
func signallingURL(c *config.Config) (*url.URL, error) {
	key, address := "server.public_url", c.Server.PublicURL
	if c.LiveKit.Signalling == "direct" {
		key, address = "livekit.public_url", c.LiveKit.PublicURL
	}
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return parsed, nil
}

// roomsKeptInMind is for how long the SFU is not asked again to have the room of
// a call. The shortest life of a room that nobody is in is that of
// focus.departure_timeout, 20 s by default.
const roomsKeptInMind = 5 * time.Second

func (a *App) buildFocus(_ context.Context, c *config.Config) error {
	signalling, err := signallingURL(c)
	if err != nil {
		return err
	}
	announced := signalling
	if c.Server.PublicURL != "" {
		if announced, err = url.Parse(c.Server.PublicURL); err != nil {
			return fmt.Errorf("server.public_url: %w", err)
		}
	}
	var members focus.Members
	if a.members != nil {
		members = a.members
	}
	var others focus.Remote
	if a.members != nil { // it knows us
		others = remote{a.home}
	}
	a.focus, err = focus.New(focus.Options{
		Config:          c.Focus,
		Store:           focus.NewStore(a.database, a.synced),
		Verifier:        a.openID,
		Policy:          a.policy,
		Owners:          a.policy,
		SFUs:            map[string]focus.SFU{c.LiveKit.Mode: patientRooms{a.sfu, a.rooms}},
		Home:            c.LiveKit.Mode,
		Tokens:          a.tokens,
		Limits:          a.limits,
		RoomsKeptInMind: roomsKeptInMind,
		Members:         members,
		Remote:          others,
		MembersEvery:    focus.MembersEvery,
		ServerName:      c.Homeserver.ServerName,
		Leaves:          a.leaves,
		Observers:       []focus.Observer{a.leaves},
		NoDoor:          c.LiveKit.Signalling == "direct",
		PublicURL:       signalling,
		Announced:       announced,
		Log:             a.log.With().Str("component", "focus").Logger(),
		Registerer:      a.registry,
	})
	if err != nil {
		return err
	}
	a.door = door.New(door.Options{
		Verify:     a.verify,
		Admit:      a.admit,
		Log:        a.log.With().Str("component", "door").Logger(),
		Registerer: a.registry,
	})
	a.focus.UseDoor(a.door)
	a.webhook = a.newWebhook()
	return nil
}

// newWebhook takes what the SFU reports to the focus.
func (a *App) newWebhook() *livekit.Webhook {
	key, secret := a.sfu.Key()
	return livekit.NewWebhook(livekit.WebhookOptions{
		Key: key, Secret: secret.Reveal(), Receiver: a.focus,
		Log: a.log.With().Str("component", "focus").Logger(), Registerer: a.registry,
	})
}

// verify joins the door to what knows the signatures of tokens.
func (a *App) verify(token string) (matrixrtc.Ticket, error) {
	ticket, err := a.tickets.Verify(token)
	if err != nil {
		return ticket, fmt.Errorf("%w: %w", door.ErrRefused, err)
	}
	return ticket, nil
}

// admit joins the door to what it asks: the grant, and an SFU that is ready. What
// the SFU gets is a token of its own, made now.
func (a *App) admit(ctx context.Context, ticket matrixrtc.Ticket) (door.Pass, error) {
	admission, err := a.focus.Admit(ctx, ticket)
	switch {
	case errors.Is(err, focus.ErrNotAdmitted):
		return door.Pass{}, fmt.Errorf("%w: %w", door.ErrRefused, err)
	case errors.Is(err, focus.ErrNoCall):
		return door.Pass{}, fmt.Errorf("%w: %w", door.ErrNoRoom, err)
	case errors.Is(err, focus.ErrFull):
		return door.Pass{}, fmt.Errorf("%w: %w", door.ErrFull, err)
	case err != nil:
		return door.Pass{}, err
	}
	entry := a.sfus[admission.SFU]
	ticket.Publish = admission.Publish
	signed, err := entry.tokens.Resign(ticket)
	if err != nil {
		return door.Pass{}, err
	}
	return door.Pass{Room: ticket.Room, Identity: ticket.Identity, SFU: entry.server.APIURL(), Token: signed}, nil
}

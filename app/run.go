package app

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/rs/zerolog"
)

// Start starts everything, in this order, and returns. Stop ends it in the
// reverse order: the SFU first, while the door still carries its goodbye to
// the clients and the private listener still takes its last webhooks.
func (a *App) Start(context.Context) error {
	if a.options.Config.DropIn != nil {
		return a.startDropIn()
	}
	publicURL, err := url.Parse(a.options.Config.Server.PublicURL)
	if err != nil {
		return fmt.Errorf("server.public_url: %w", err)
	}
	proxies, err := newProxies(a.options.Config.Server.TrustedProxies)
	if err != nil {
		return err
	}
	announced, err := announcements(a.options.Config)
	if err != nil {
		return err
	}
	a.runHold()
	a.life.run("focus", a.focus.Run)
	a.life.run("leaves", a.leaves.Run)
	a.serve("private listener", a.privateListener, newPrivate(a.checks(), a.registry, a.webhook, a.focus))
	a.serve("public listener", a.publicListener, a.withSigned(newPublic(publicURL.Path, proxies, a.focus, a.door, a.log, announced...)))
	a.serveHomeserver()
	a.life.onStop("door", a.lastWords)
	a.life.run("sfu", a.sfu.Run)
	a.log.Info().
		Str("public", a.publicListener.Addr().String()).
		Str("private", a.privateListener.Addr().String()).
		Str("public_url", a.options.Config.Server.PublicURL).
		Str("version", a.options.Version).
		Msg("Passerelle is listening")
	return nil
}

// runHold looks after the hold of a PostgreSQL database.
func (a *App) runHold() {
	if a.hold != nil {
		a.life.run("hold of the database, kept", a.hold.Run)
	}
}

// lastWords gives the signalling connections, whose SFU has just ended, a
// moment to carry its goodbye to the clients. Those to an SFU that goes on have
// no such end and are cut.
func (a *App) lastWords(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	return a.door.Stop(ctx)
}

// PublicAddr is the address of the public listener.
func (a *App) PublicAddr() net.Addr { return a.publicListener.Addr() }

// PrivateAddr is the address of the private listener, which each has but a
// drop-in.
func (a *App) PrivateAddr() net.Addr { return a.privateListener.Addr() }

// ProxiedAddr is the address of the homeserver's listener, nil when it is off.
func (a *App) ProxiedAddr() net.Addr {
	if a.proxiedListener == nil {
		return nil
	}
	return a.proxiedListener.Addr()
}

// Failed delivers the error of a part that ended by itself. The program cannot
// go on then; call Stop.
func (a *App) Failed() <-chan error { return a.life.failed }

// Stop ends everything within the configured time. It may be called at any
// time after New, and again.
func (a *App) Stop() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), a.options.Config.Server.StopTimeout,
		errors.New("server.stop_timeout is over"))
	defer cancel()
	return a.life.stop(ctx)
}

// serve runs an HTTP server with the limits that every listener has.
func (a *App) serve(name string, listener net.Listener, handler http.Handler) {
	requests, cancelRequests := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		// The door's connections are taken over and have deadlines of their own.
		WriteTimeout: 40 * time.Second,
		// Synapse keeps connections for two minutes, and what it sends on one
		// that we have just closed is lost.
		IdleTimeout:    5 * time.Minute,
		MaxHeaderBytes: 128 << 10, // a client's first offer travels in the query
		BaseContext:    func(net.Listener) context.Context { return requests },
		ErrorLog:       stdlog.New(errorLog{a.log}, "", 0),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	a.life.run(name, func(ctx context.Context) error {
		select {
		case err := <-failed:
			cancelRequests()
			return fmt.Errorf("serve %s: %w", listener.Addr(), err)
		case <-ctx.Done():
		}
		// Requests get a moment to finish. The door's connections are none any
		// more; it ends them itself.
		time.AfterFunc(time.Second, cancelRequests)
		defer cancelRequests()
		closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(closing); err != nil {
			return errors.Join(err, server.Close())
		}
		<-failed
		return nil
	})
}

// checks are what readiness depends on.
func (a *App) checks() []check {
	return []check{
		{"database", a.database.RawDB.PingContext},
		{"sfu", func(ctx context.Context) error {
			if err := a.sfu.WaitReady(ctx); err != nil {
				return err
			}
			return a.rooms.Ping(ctx)
		}},
	}
}

// errorLog takes what net/http has to say: broken clients, mostly.
type errorLog struct{ log zerolog.Logger }

func (e errorLog) Write(line []byte) (int, error) {
	e.log.Debug().Bytes("line", line).Msg("HTTP server")
	return len(line), nil
}

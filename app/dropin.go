package app

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"time"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus"
	"passerelle/focus/leave"
	"passerelle/focus/leave/redis"
	"passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
)

// This file and dropin_homeserver.go are what Passerelle does otherwise in the
// place of an lk-jwt-service (docs/lk-jwt-service.md): who was content with that
// service's answers, addresses and timing must not notice the change.

// dropInBuilds are the parts of a drop-in, in their order. It listens last: who
// reaches it finds the leaves of the process before it looked after.
func (a *App) dropInBuilds() []func(context.Context, *config.Config) error {
	return []func(context.Context, *config.Config) error{
		a.warnDropIn, a.openDatabase, a.buildDropInFederation, a.buildSFU, a.buildDropInLeaves, a.buildDropInFocus,
		func(ctx context.Context, _ *config.Config) error { return a.leaves.Load(ctx) },
		a.listen,
	}
}

// warnDropIn says at each start what an operator should know.
func (a *App) warnDropIn(_ context.Context, c *config.Config) error {
	for _, warning := range c.DropIn.Warnings {
		a.log.Warn().Msg(warning)
	}
	if c.Focus.Membership == "unverified" {
		a.log.Warn().Msg("No homeserver can be asked about membership: whoever knows a room's ID gets a token for its calls. " +
			"Set LIVEKIT_AS_REGISTRATION_FILE and LIVEKIT_HS_SERVER_NAME, or use a configuration file")
	}
	return nil
}

// buildDropInFederation: every server may be asked, wherever it is and however
// often it failed. What its users may do is looked up where it is needed.
func (a *App) buildDropInFederation(_ context.Context, c *config.Config) (err error) {
	a.limits = federation.NewLimits(c.Focus.Limits)
	if a.policy, err = federation.NewPolicy([]config.FederationRule{{Server: "*", Access: "create"}}); err != nil {
		return err
	}
	o := federation.Options{
		Config:          c.Federation,
		Policy:          a.policy,
		SkipVerifyTLS:   c.DropIn.SkipVerifyTLS,
		Insist:          true,
		PlainClientAPIs: true,
		Log:             a.log.With().Str("component", "federation").Logger(),
		Registerer:      a.registry,
	}
	if a.openID, err = federation.NewOpenID(o); err != nil {
		return err
	}
	a.life.onStop("federation", func(context.Context) error { a.openID.Close(); return nil })
	apis, err := federation.NewClientAPIs(o)
	if err != nil {
		return err
	}
	a.life.onStop("client APIs", func(context.Context) error { apis.Close(); return nil })
	a.dropInServers, err = newDropInServers(c, apis)
	return err
}

// dropInTiming is that of lk-jwt-service, where it is not better.
func dropInTiming(c *config.DropIn) leave.Timing {
	t := leave.DefaultTiming()
	t.MinDelay, t.MaxDelay = time.Millisecond, 100*365*24*time.Hour
	// The pause is up to a twentieth longer.
	t.RestartAt, t.MinPause = 0.78, 0
	t.LookCap, t.LookEvery, t.MissPause = 15*time.Second, c.SanityCheckInterval, 0
	t.ReconnectWait, t.Grace = time.Second, 2*time.Second
	t.CallTimeout = 5 * time.Second
	// Homeservers say themselves when it is too much.
	t.PaceEvery, t.PaceBurst = time.Millisecond, 1000
	t.MaxPerUser = t.MaxJobs
	t.EndFailed, t.IgnoreEarlyEnds, t.SilenceConfirms, t.KeepReplaced = true, true, true, true
	return t
}

func (a *App) buildDropInLeaves(ctx context.Context, c *config.Config) error {
	log := a.log.With().Str("component", "leaves").Logger()
	store := leave.NewStore(a.synced)
	if c.DropIn.RedisURL != "" {
		jobs, err := redis.Open(ctx, redis.Options{URL: c.DropIn.RedisURL, Password: c.DropIn.RedisPassword, Log: log})
		if err != nil {
			return fmt.Errorf("LIVEKIT_REDIS_URL: %w", err)
		}
		a.life.onStop("redis", func(context.Context) error { return jobs.Close() })
		store = jobs
	}
	var err error
	a.leaves, err = leave.New(leave.Options{
		Store:       store,
		Homeservers: a.dropInServers,
		SFU:         quickLooks{a.rooms},
		Timing:      dropInTiming(c.DropIn),
		Log:         log,
		Registerer:  a.registry,
	})
	return err
}

// quickLooks gives the SFU a second: an SFU that has ended a connection and
// does not answer has ended it.
type quickLooks struct{ rooms *livekit.Rooms }

// Participant implements leave.SFU.
func (q quickLooks) Participant(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (matrixrtc.Participant, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return q.rooms.Participant(ctx, room, who)
}

func (a *App) buildDropInFocus(_ context.Context, c *config.Config) error {
	address, err := signallingURL(c)
	if err != nil {
		return err
	}
	a.focus, err = focus.New(focus.Options{
		Config:            c.Focus,
		Store:             focus.NewStore(a.database, a.synced),
		Verifier:          a.openID,
		Policy:            federation.NewFullAccess(c.DropIn.Everybody, c.DropIn.FullAccess),
		SFUs:              map[string]focus.SFU{c.LiveKit.Mode: a.rooms},
		Home:              c.LiveKit.Mode,
		SharedSFU:         true,
		ProofsForAnyUse:   true,
		Unrecorded:        c.Database.InMemory() && c.Focus.Membership != "required",
		Tokens:            a.tokens,
		UpdateOwnMetadata: c.DropIn.CanUpdateOwnMetadata,
		Limits:            a.limits,
		Members:           a.dropInMembers(c),
		MembersEvery:      c.DropIn.MembershipCheckInterval,
		ServerName:        c.Homeserver.ServerName,
		Leaves:            a.leaves,
		Observers:         []focus.Observer{a.leaves},
		PublicURL:         address,
		SFUAddress:        c.LiveKit.PublicURL,
		Log:               a.log.With().Str("component", "focus").Logger(),
		Registerer:        a.registry,
	})
	if err != nil {
		return err
	}
	a.webhook = a.newWebhook()
	return nil
}

// startDropIn is Start: one listener for all, and a private one, for metrics,
// only where one was asked for.
func (a *App) startDropIn() error {
	c := a.options.Config
	proxies, err := newProxies(c.Server.TrustedProxies)
	if err != nil {
		return err
	}
	d := &dropIn{public: newPublic("/", proxies, a.focus, nil, a.log), webhook: a.webhook}
	d.public.cors = dropInCORS
	if c.Homeserver.HSToken != "" {
		d.proxied = a.newProxied()
	}
	a.runHold()
	a.life.run("focus", a.focus.Run)
	a.life.run("leaves", a.leaves.Run)
	if a.privateListener != nil {
		checks := []check{{"database", a.database.RawDB.PingContext}}
		a.serve("private listener", a.privateListener, newPrivate(checks, a.registry, a.webhook, a.focus))
	}
	a.serve("public listener", a.publicListener, d)
	a.log.Info().Str("public", a.publicListener.Addr().String()).Str("version", a.options.Version).
		Msg("Passerelle is listening in the place of lk-jwt-service")
	return nil
}

// dropInCORS are the headers of lk-jwt-service, which has no Max-Age.
var dropInCORS = corsHeaders{
	post:    "POST",
	headers: "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token",
}

// dropIn is the one listener's handler.
type dropIn struct {
	public  *public
	webhook http.Handler
	proxied http.Handler // nil without a registration at a homeserver
}

// ServeHTTP implements [http.Handler].
func (d *dropIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch asked := path.Clean("/" + r.URL.Path); {
	case asked == "/healthz":
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	case asked == webhookPath:
		d.webhook.ServeHTTP(w, r)
	case d.proxied != nil && isMatrix(asked):
		d.proxied.ServeHTTP(w, r)
	default:
		d.public.ServeHTTP(w, r)
	}
}

package app

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"

	"passerelle/config"
	"passerelle/focus/homeserver"
	"passerelle/focus/proxied"
)

// buildHomeserver: without a token we can ask it what it can do, and no more.
func (a *App) buildHomeserver(_ context.Context, c *config.Config) error {
	if c.Focus.Membership == "unverified" {
		a.log.Warn().Msg("focus.membership is unverified: nobody is asked who is in a room, and whoever knows a room's ID gets into its calls")
	}
	if c.Homeserver.URL == "" {
		return nil
	}
	a.home = homeserver.NewClient(homeserver.Options{
		URL: c.Homeserver.URL, Token: c.Homeserver.ASToken.Reveal(), Registerer: a.registry,
	})
	a.life.onStop("homeserver", func(context.Context) error { a.home.Close(); return nil })
	if c.Homeserver.ASToken != "" {
		a.members = homeserver.NewMembership(a.home, c.Homeserver.ServerName, a.log.With().Str("component", "homeserver").Logger())
	}
	return nil
}

// serveHomeserver serves what the homeserver hands over, and has it asked
// whether it is set up for us.
func (a *App) serveHomeserver() {
	if a.proxiedListener != nil {
		a.serve("homeserver's listener", a.proxiedListener, a.newProxied())
	}
	if a.home != nil {
		a.life.run("homeserver check", a.checkHomeserver)
	}
}

func (a *App) newProxied() *proxied.Listener {
	return proxied.New(proxied.Options{
		HSToken: a.options.Config.Homeserver.HSToken.Reveal(), Token: a.focus.ServeVouched, Delegate: a.focus.ServeVouchedLeave,
		Log: a.log.With().Str("component", "proxied").Logger(), Registerer: a.registry,
	})
}

// checkPause is how long is waited, at first, for a homeserver that does not
// answer; in the end it is a minute.
const checkPause = 2 * time.Second

// CheckOptions say what our homeserver should be able to do.
func CheckOptions(c *config.Config) homeserver.CheckOptions {
	return homeserver.CheckOptions{
		ServerName: c.Homeserver.ServerName,
		Unverified: c.Focus.Membership == "unverified",
		Proxied:    c.Homeserver.Listen != "", ProbePath: proxied.Probe, ProbeAnswer: proxied.ProbeAnswer,
		Transports: Transports(c), AnnouncedByUs: c.Announce.Transports,
	}
}

// checkHomeserver asks the homeserver, as soon as it answers, whether it is set
// up for us, and says in the log what is not. Nothing waits for it.
func (a *App) checkHomeserver(ctx context.Context) error {
	log := a.log.With().Str("component", "homeserver").Logger()
	options := CheckOptions(a.options.Config)
	for pause := checkPause; ; pause = min(2*pause, time.Minute) {
		findings, answered := a.home.Check(ctx, options)
		if ctx.Err() != nil {
			return nil
		}
		if answered || pause == checkPause {
			for _, f := range findings {
				level, text := zerolog.WarnLevel, "The homeserver is not set up as it should be: "
				if f.Unseen {
					level, text = zerolog.InfoLevel, "Look at the homeserver's configuration yourself: "
				}
				log.WithLevel(level).Str("costs", f.Costs).Str("mend", f.Mend).Msg(text + f.Wrong)
			}
		}
		if answered {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
	<-ctx.Done() // a part that ends by itself ends the program
	return nil
}

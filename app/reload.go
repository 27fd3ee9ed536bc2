package app

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/config"
)

type reloadMetrics struct {
	successful prometheus.Gauge
	at         prometheus.Gauge
}

func newReloadMetrics(reg prometheus.Registerer) reloadMetrics {
	m := reloadMetrics{
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "passerelle_config_last_reload_successful",
			Help: "Whether the configuration was good when it was last read: 1 or 0.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "passerelle_config_last_reload_success_timestamp_seconds",
			Help: "When a good configuration was last read.",
		}),
	}
	reg.MustRegister(m.successful, m.at)
	m.successful.Set(1)
	m.at.SetToCurrentTime()
	return m
}

// Reload reads the configuration again and applies what can change in a
// running program. A file with mistakes changes nothing. What needs a restart
// is named in the log.
func (a *App) Reload() error {
	fresh, err := a.options.Load()
	if err == nil {
		err = a.apply(fresh)
	}
	if err != nil {
		a.reloads.successful.Set(0)
		return err
	}
	a.reloads.successful.Set(1)
	a.reloads.at.SetToCurrentTime()
	return nil
}

// apply does what can fail first, and only then what cannot.
func (a *App) apply(fresh *config.Config) error {
	running := a.config.Load()
	// The policy of a drop-in is no list of rules, and its variables stay.
	if fresh.DropIn == nil {
		if err := a.policy.Replace(fresh.Federation.Rules); err != nil {
			return err
		}
	}
	a.focus.Reconfigure(fresh.Focus)
	a.focus.RightsChanged()
	if fresh.Focus.Limits != running.Focus.Limits {
		a.limits.Reconfigure(fresh.Focus.Limits)
	}
	if level, err := zerolog.ParseLevel(fresh.Log.Level); err == nil {
		zerolog.SetGlobalLevel(level)
	}
	a.config.Store(fresh)
	hot, _ := config.Changed(running, fresh)
	// What needs a restart still is as it was at the start.
	_, cold := config.Changed(a.options.Config, fresh)
	a.log.Info().Strs("changed", hot).Msg("Configuration read again")
	if len(cold) > 0 {
		a.log.Warn().Strs("keys", cold).Msg("These changes need a restart")
	}
	return nil
}

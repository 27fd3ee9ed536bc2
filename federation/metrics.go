package federation

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics name no server: strangers choose the names.
type metrics struct {
	lookups  *prometheus.CounterVec
	duration prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, p *peers) metrics {
	factory := promauto.With(reg)
	for _, state := range []breakerState{closed, open, halfOpen} {
		factory.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "passerelle_federation_servers",
			Help:        "Homeservers asked lately, by the state of their circuit breaker: closed is well, open is left alone.",
			ConstLabels: prometheus.Labels{"breaker": string(state)},
		}, func() float64 { return float64(p.count(state)) })
	}
	m := metrics{
		lookups: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_federation_openid_lookups_total",
			Help: "OpenID tokens looked at, by outcome.",
		}, []string{"outcome"}),
		duration: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "passerelle_federation_openid_lookup_seconds",
			Help:    "Time that asking a homeserver whose an OpenID token is took, waiting and discovery included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	for _, outcome := range []string{"verified", "not_allowed", "rejected", "foreign_subject", "unreachable", "paused", "abandoned"} {
		m.lookups.WithLabelValues(outcome)
	}
	return m
}

func (m metrics) observe(err error, took time.Duration) {
	outcome := outcomeOf(err)
	m.lookups.WithLabelValues(outcome).Inc()
	if outcome != "not_allowed" && outcome != "paused" {
		m.duration.Observe(took.Seconds())
	}
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "verified"
	case errors.Is(err, ErrNotAllowed):
		return "not_allowed"
	case errors.Is(err, ErrRejected):
		return "rejected"
	case errors.Is(err, ErrForeignSubject):
		return "foreign_subject"
	case errors.Is(err, errPaused):
		return "paused"
	case errors.Is(err, context.Canceled):
		return "abandoned"
	}
	return "unreachable"
}

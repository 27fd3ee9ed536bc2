package federation

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	verifications *prometheus.CounterVec
	duration      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, p *peers) metrics {
	m := metrics{
		verifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_federation_openid_total",
			Help: "OpenID tokens looked at, by outcome.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "passerelle_federation_openid_seconds",
			Help:    "Time that homeservers take to say whose an OpenID token is.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	paused := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "passerelle_federation_servers_paused",
		Help: "Homeservers that failed repeatedly and are left alone for a moment.",
	}, func() float64 { return float64(p.paused()) })
	reg.MustRegister(m.verifications, m.duration, paused)
	return m
}

func (m metrics) verified(err error, took time.Duration) {
	outcome := "verified"
	switch {
	case errors.Is(err, ErrNotAllowed):
		outcome = "not_allowed"
	case errors.Is(err, ErrRejected):
		outcome = "rejected"
	case errors.Is(err, ErrForeignSubject):
		outcome = "foreign_subject"
	case err != nil:
		outcome = "unreachable"
	}
	m.verifications.WithLabelValues(outcome).Inc()
	if !errors.Is(err, ErrNotAllowed) {
		m.duration.Observe(took.Seconds())
	}
}

package sfu

import "github.com/prometheus/client_golang/prometheus"

// The reasons of a restart.
const (
	// reasonEnded: a child that had taken participants is gone.
	reasonEnded = "ended"
	// reasonStart: a child did not become ready.
	reasonStart = "start_failed"
	// reasonHung: a child did not answer any more and was ended.
	reasonHung = "hung"
)

type metrics struct {
	up       prometheus.Gauge
	restarts *prometheus.CounterVec
	start    prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "passerelle_sfu_up",
			Help: "Whether the SFU can take participants: 1 or 0.",
		}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_sfu_restarts_total",
			Help: "How often the SFU was started again: ended (it was running), hung (it ran and did not answer), start_failed (it never came so far).",
		}, []string{"reason"}),
		start: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "passerelle_sfu_start_duration_seconds",
			Help:    "From the start of an SFU until it can take participants.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}),
	}
	m.restarts.WithLabelValues(reasonEnded)
	m.restarts.WithLabelValues(reasonStart)
	m.restarts.WithLabelValues(reasonHung)
	reg.MustRegister(m.up, m.restarts, m.start)
	return m
}

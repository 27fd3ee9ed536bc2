package sfu

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	up       prometheus.Gauge
	restarts prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "passerelle_sfu_up",
			Help: "Whether the SFU can take participants: 1 or 0.",
		}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_sfu_restarts_total",
			Help: "How often the SFU ended by itself and was started again.",
		}),
	}
	reg.MustRegister(m.up, m.restarts)
	return m
}

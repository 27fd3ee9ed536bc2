package door

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	sockets  prometheus.Gauge
	admitted prometheus.Counter
	refused  *prometheus.CounterVec
	ended    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		sockets: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "passerelle_door_connections",
			Help: "Requests and signalling connections that pass the door now.",
		}),
		admitted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_door_admitted_total",
			Help: "Requests that the door let through to an SFU.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_door_refused_total",
			Help: "Requests that the door refused, by reason.",
		}, []string{"reason"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_door_ended_total",
			Help: "Signalling connections that the door ended itself, by reason.",
		}, []string{"reason"}),
	}
	reg.MustRegister(m.sockets, m.admitted, m.refused, m.ended)
	return m
}

package leave

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics name no user, room or server.
type metrics struct {
	accepted prometheus.Counter
	ended    *prometheus.CounterVec
	actions  *prometheus.CounterVec
	lateness *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, l *Leaves) metrics {
	factory := promauto.With(reg)
	for _, state := range []State{Waiting, Failed, Connected, Sending, Cancelling} {
		factory.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "passerelle_leave_jobs",
			Help:        "Delayed leaves looked after, by state.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func() float64 { return float64(l.count(state)) })
	}
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "passerelle_leave_queued",
		Help: "Calls to homeservers that are due and wait for their turn.",
	}, l.queued)
	m := metrics{
		accepted: factory.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_leave_accepted_total",
			Help: "Delayed leaves that clients handed over.",
		}),
		ended: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_leave_ended_total",
			Help: "Delayed leaves that are done with, by how they ended.",
		}, []string{"outcome"}),
		actions: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_leave_actions_total",
			Help: "Calls to homeservers about delayed leaves, by action and outcome.",
		}, []string{"action", "outcome"}),
		lateness: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "passerelle_leave_lateness_seconds",
			Help:    "How long after it was due a delayed leave was put off, and how long after the participant was found to be gone it was sent.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}, []string{"action"}),
	}
	for _, outcome := range []string{"sent", "replaced", "vanished", "refused", "expired", "never_connected"} {
		m.ended.WithLabelValues(outcome)
	}
	return m
}

func (m metrics) acted(what action, v verdict) {
	m.actions.WithLabelValues(string(what), v.String()).Inc()
}

func (m metrics) late(what action, by time.Duration) {
	m.lateness.WithLabelValues(string(what)).Observe(max(by, 0).Seconds())
}

func (l *Leaves) count(state State) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.tasks {
		if t.State == state {
			n++
		}
	}
	return n
}

func (l *Leaves) queued() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, way := range l.lanes {
		n += len(way.queue)
	}
	return float64(n)
}

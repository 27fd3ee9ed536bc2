package focus

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"maunium.net/go/mautrix"
)

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_focus_token_requests_total",
			Help: "Token requests, and leaves handed over (route delegate), by route and outcome (granted, or the Matrix error code).",
		}, []string{"route", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "passerelle_focus_token_request_seconds",
			Help:    "Time to answer a token request, the homeserver's answer included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
	}
	reg.MustRegister(m.requests, m.duration)
	return m
}

// answered counts one request. Error codes are ours, so the label's values
// are a closed set.
func (m metrics) answered(r route, err error, took time.Duration) {
	outcome := "granted"
	if err != nil {
		outcome = "M_UNKNOWN"
		if known, ok := errors.AsType[mautrix.RespError](err); ok {
			outcome = known.ErrCode
		} else if _, ok := errors.AsType[limitError](err); ok {
			outcome = "M_LIMIT_EXCEEDED"
		}
	}
	m.requests.WithLabelValues(string(r), outcome).Inc()
	m.duration.WithLabelValues(string(r)).Observe(took.Seconds())
}

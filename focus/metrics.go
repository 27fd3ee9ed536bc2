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
	// membership has the values joined, not_joined, unknown and unverified.
	membership *prometheus.CounterVec
	// revoked counts grants; strangers participants without one; corrected what
	// a poll found otherwise than the rows said.
	revoked   prometheus.Counter
	strangers prometheus.Counter
	corrected *prometheus.CounterVec
	// rights counts participants whose rights were changed while they were
	// connected, disguised those who sent what they may not; ended the calls that
	// were too long.
	rights    prometheus.Counter
	disguised prometheus.Counter
	ended     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, g *gate) metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_focus_token_requests_total",
			Help: "Token requests, and leaves handed over (routes delegate and proxied_delegate), by route and outcome (granted, or the Matrix error code).",
		}, []string{"route", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "passerelle_focus_token_request_seconds",
			Help:    "Time to answer a token request, the homeserver's answer included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
		membership: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_focus_membership_total",
			Help: "Whether those who asked for a token are in the room: joined, not_joined, unknown, or unverified where nobody is asked.",
		}, []string{"answer"}),
		revoked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_focus_revoked_total",
			Help: "Grants that were taken back.",
		}),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_focus_strangers_total",
			Help: "Participants found on the SFU without a living grant, and removed.",
		}),
		corrected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_focus_corrections_total",
			Help: "What the SFU did not report and a poll found: joined or left.",
		}, []string{"what"}),
		rights: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_focus_rights_changed_total",
			Help: "Participants for whom what they may send was changed while they were connected.",
		}),
		disguised: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_focus_disguised_total",
			Help: "Participants who sent a source that they may not, under the name of another, and were removed.",
		}),
		ended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "passerelle_focus_calls_ended_total",
			Help: "Calls that were ended because they were as long as they may be.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.revoked, m.strangers, m.corrected, m.membership, m.rights, m.disguised, m.ended, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "passerelle_focus_token_requests_in_work",
		Help: "Token requests that wait for a homeserver, the SFU or the database; too many are refused.",
	}, func() float64 { return float64(g.inWork()) }))
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

package homeserver

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	questions *prometheus.CounterVec
	duration  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) metrics {
	factory := promauto.With(reg)
	return metrics{
		questions: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_homeserver_questions_total",
			Help: "Questions to our own homeserver, by question and outcome (answered, refused, failed).",
		}, []string{"question", "outcome"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "passerelle_homeserver_question_seconds",
			Help:    "Time our own homeserver takes to answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"question"}),
	}
}

func (m metrics) observe(question string, err error, took time.Duration) {
	outcome := "answered"
	if _, ok := errors.AsType[*Refusal](err); ok {
		outcome = "refused"
	} else if err != nil {
		outcome = "failed"
	}
	m.questions.WithLabelValues(question, outcome).Inc()
	m.duration.WithLabelValues(question).Observe(took.Seconds())
}

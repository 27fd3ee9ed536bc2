package child

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// TestAwaitSilence counts as LiveKit does.
func TestAwaitSilence(t *testing.T) {
	for name, c := range map[string]struct {
		queued, dispatched []time.Duration // when
		want               time.Duration
	}{
		"nothing to report":   {nil, nil, silence},
		"delivered at once":   {[]time.Duration{1}, []time.Duration{1}, silence},
		"one after the other": {[]time.Duration{1, 40 * time.Millisecond}, []time.Duration{1, 80 * time.Millisecond}, 80*time.Millisecond + silence},
		"slowly":              {[]time.Duration{1, 1}, []time.Duration{1, 300 * time.Millisecond}, 300*time.Millisecond + silence},
		"nobody takes it":     {[]time.Duration{1}, nil, lastWords},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := prometheus.NewRegistry()
				queue := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "livekit_webhook_queue_length"})
				dispatch := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "livekit_webhook_dispatch_total"}, []string{"status"})
				registry.MustRegister(queue, dispatch)
				for _, at := range c.queued {
					time.AfterFunc(at, func() { queue.Observe(1) })
				}
				for _, at := range c.dispatched {
					time.AfterFunc(at, func() { dispatch.WithLabelValues("success").Inc() })
				}
				began := time.Now()
				awaitSilence(t.Context(), registry)
				require.InDelta(t, c.want, time.Since(began), float64(3*pollInterval))
			})
		})
	}
}

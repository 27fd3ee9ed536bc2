package app

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// checkTimeout bounds one question of the readiness check.
const checkTimeout = 2 * time.Second

// check is one thing that must be well for this process to be ready.
type check struct {
	name string
	ask  func(context.Context) error
}

// newPrivate is the handler of the private listener: health, metrics, the
// webhooks of the SFU, and what operators do by hand.
func newPrivate(checks []check, gatherer prometheus.Gatherer, webhook http.Handler, grants revoker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { serveReadiness(w, r, checks) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	mux.Handle(webhookPath, webhook)
	mux.Handle("POST /admin/revoke", revocations{grants})
	return mux
}

// serveReadiness asks all checks at once and answers 200 when all are well and
// 503 otherwise, with a line for each: its name, and "ok" or what is wrong.
func serveReadiness(w http.ResponseWriter, r *http.Request, checks []check) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	answers := make([]string, len(checks))
	var asking sync.WaitGroup
	for i, c := range checks {
		asking.Go(func() {
			answers[i] = "ok"
			if err := c.ask(ctx); err != nil {
				answers[i] = err.Error()
			}
		})
	}
	asking.Wait()
	status := http.StatusOK
	body := make(map[string]string, len(checks))
	for i, c := range checks {
		body[c.name] = answers[i]
		if answers[i] != "ok" {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

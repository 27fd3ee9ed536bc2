package door_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/focus/door"
	"passerelle/focus/matrixrtc"
)

// One participant's attempts are bounded, whatever becomes of them, before
// anything is looked up; nobody else's are by it, and a token that is not genuine
// counts for nobody.
func TestTooManyAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry, asked := prometheus.NewRegistry(), 0
		d := door.New(door.Options{
			Verify: func(token string) (matrixrtc.Ticket, error) {
				who, signature, _ := strings.Cut(token, ".")
				if signature != "good" {
					return matrixrtc.Ticket{}, fmt.Errorf("%w: not genuine", door.ErrRefused)
				}
				name, term, _ := strings.Cut(who, "-")
				return matrixrtc.Ticket{Room: "room", Identity: matrixrtc.Identity(name), Term: int64(len(term))}, nil
			},
			Admit: func(context.Context, matrixrtc.Ticket) (door.Pass, error) {
				asked++
				return door.Pass{}, fmt.Errorf("%w: no grant", door.ErrRefused)
			},
			Log: zerolog.Nop(), Registerer: registry,
		})
		attempt := func(token string, n int) *httptest.ResponseRecorder {
			route := door.Routes[n%len(door.Routes)]
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, route+"?access_token="+token, nil)
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
			w := httptest.NewRecorder()
			d.Serve(w, r, route)
			return w
		}
		for n := range 100 {
			require.Equal(t, http.StatusForbidden, attempt("ana.forged", n).Code)
		}
		require.Zero(t, asked)
		for n := range 60 {
			require.Equal(t, http.StatusForbidden, attempt("ana.good", n).Code, "none of them was hers")
		}
		for n := range 100 {
			answer := attempt("ana.good", n)
			require.Equal(t, http.StatusServiceUnavailable, answer.Code)
			require.Equal(t, "2", answer.Header().Get("Retry-After"))
		}
		require.Equal(t, 60, asked)
		require.Equal(t, http.StatusForbidden, attempt("bo.good", 0).Code)
		require.Equal(t, http.StatusForbidden, attempt("ana-x.good", 0).Code, "it was given since, and others do not use it up")

		time.Sleep(2 * time.Second)
		require.Equal(t, http.StatusForbidden, attempt("ana.good", 0).Code, "what was refused does not count")
		require.Equal(t, http.StatusServiceUnavailable, attempt("ana.good", 0).Code)
		families, err := registry.Gather()
		require.NoError(t, err)
		refused := map[string]float64{}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				if family.GetName() == "passerelle_door_refused_total" {
					refused[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		require.Equal(t, map[string]float64{"not_admitted": 163, "too_often": 101}, refused)
	})
}

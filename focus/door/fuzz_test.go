package door_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/focus/door"
	"passerelle/focus/matrixrtc"
)

// FuzzToken sends any query and any Authorization headers. Whatever they are,
// at most one token is looked at, it is one that stands in the request whole,
// and nothing of it comes back.
func FuzzToken(f *testing.F) {
	f.Add("access_token=a.b.c", "")
	f.Add("access_token=a&access_token=b", "")
	f.Add("access_token=a;access_token=b", "Bearer a")
	f.Add("", "Bearer a.b.c")
	f.Add("", "bearer a")
	f.Add("access%5ftoken=a&x=%zz", "Basic a")
	f.Add("access_token=%00%0d%0aX:1&join_request=a%2Bb", "Bearer \x00")
	f.Add("access_token="+strings.Repeat("x", 9000), "")
	var asked []string
	d := door.New(door.Options{
		Verify: func(token string) (matrixrtc.Ticket, error) {
			asked = append(asked, token)
			return matrixrtc.Ticket{}, fmt.Errorf("%w: never", door.ErrRefused)
		},
		Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
	})
	f.Fuzz(func(t *testing.T, query, authorization string) {
		asked = nil
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/rtc/validate", nil)
		r.URL.RawQuery = query
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		w := httptest.NewRecorder()
		d.Serve(w, r, "/rtc/validate")
		if w.Code != http.StatusForbidden {
			t.Fatalf("status %d", w.Code)
		}
		if len(asked) > 1 {
			t.Fatalf("asked for %d tokens", len(asked))
		}
		for _, token := range asked {
			values, err := url.ParseQuery(query)
			inQuery := err == nil && len(values["access_token"]) == 1 && values.Get("access_token") == token
			if inQuery == (authorization == "Bearer "+token) {
				t.Fatalf("%q is not the one token of %q, %q", token, query, authorization)
			}
			if len(token) > 8<<10 || len(token) > 40 && strings.Contains(w.Body.String(), token) {
				t.Fatalf("%q is too long, or was sent back", token)
			}
		}
	})
}

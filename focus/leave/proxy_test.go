package leave_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What stands before a homeserver answers in its place while that is restarted,
// or while a route is missing. Nobody's leave ends by that.
func TestAnswersThatAreNotTheHomeservers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   string
	}{
		"a page that is not found":         {404, nil, "<html>404 Not Found</html>"},
		"a process without delayed events": {404, nil, `{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}`},
		"a filter":                         {403, nil, "Forbidden"},
		"another one's login":              {401, nil, "<html>401</html>"},
		"a conflict":                       {409, nil, "busy"},
		"down for an hour, it says":        {503, http.Header{"Retry-After": {"3600"}}, "<html>maintenance</html>"},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(w *town) {
				w.hand("ana", "d1", hour)
				w.hand("bo", "d2", hour)
				w.joins("ana", "PA_1")
				w.joins("bo", "PA_2")
				w.home.misbehave(func(string, string, int) (int, http.Header, string) { return c.status, c.header, c.body })
				w.leaves("bo", "PA_2", "CLIENT_INITIATED")
				w.pass(35 * time.Minute) // it is to be put off within
				require.Less(w.t, len(w.home.got("", "")), 500)
				w.home.misbehave(nil)
				w.pass(2 * time.Minute)
				require.Equal(w.t, "sent", w.home.fate("d2"))
				w.pass(3 * hour)
				require.Empty(w.t, w.home.fate("d1"), "she is there")
			})
		})
	}
}

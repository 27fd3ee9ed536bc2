package host_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"passerelle/demo/caller"
	"passerelle/demo/host"
	"passerelle/demo/parts/partstest"
)

// The page that is really built, in a real browser: what keeps somebody out of
// the call stands on it in words, in the language of the link.
func TestPageSaysWhatIsWrong(t *testing.T) {
	web, chromium := partstest.Web(t), partstest.Chromium(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization")
		if r.Method == http.MethodOptions {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errcode":"M_UNKNOWN_TOKEN","error":"who are you"}`))
	}))
	t.Cleanup(refusing.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()

	at := func(homeserver string) host.Session {
		s := agnes
		s.Homeserver = homeserver
		return s
	}
	h, err := host.Handler(host.Options{Dist: web, Sessions: map[string]host.Session{
		"refused": at(refusing.URL), "gone": at(gone.URL),
	}})
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)

	for name, test := range map[string]struct{ session, lang, want string }{
		"a link to nobody":         {"nobody", "fr", "Ce lien ne mène à aucun compte."},
		"a link to nobody, abroad": {"nobody", "en", "This link leads to no account."},
		"a token that is refused":  {"refused", "fr", "Le serveur de messagerie ne connaît plus cette session."},
		"a server that is gone":    {"gone", "en", "The homeserver does not answer."},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, err := caller.Start(ctx, caller.Options{
				Chromium: chromium, URL: host.Link(server.URL, test.session, test.lang, true),
				Dir: t.TempDir(), Name: test.session, Tone: 440, Log: zerolog.New(zerolog.NewTestWriter(t)),
			})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, c.Close()) })
			require.EventuallyWithT(t, func(t *assert.CollectT) {
				shown, err := c.Shown(ctx)
				assert.NoError(t, err)
				assert.Contains(t, shown, "error: ")
				assert.Contains(t, shown, test.want)
			}, 20*time.Second, 100*time.Millisecond)
		})
	}
}

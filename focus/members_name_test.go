package focus_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/homeserver"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// ownExample is a homeserver that is called own.example. Its users are in every
// room, as are those of others, but for Ana, once she has left, or all of them.
type ownExample struct{ anaLeft, allLeft atomic.Bool }

// RoundTrip implements [http.RoundTripper].
func (h *ownExample) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := http.StatusOK, `{"joined":true}`
	server, user := r.URL.Query().Get("server_name"), r.URL.Query().Get("mxid")
	switch {
	case strings.HasSuffix(r.URL.Path, "/whoami"):
		body = `{"user_id":"@_passerelle_focus:own.example"}`
	case !strings.HasSuffix(r.URL.Path, "/is_joined"):
		status, body = http.StatusNotFound, `{"errcode":"M_UNRECOGNIZED"}`
	case server != "" && (server != "own.example" || h.allLeft.Load()), h.anaLeft.Load() && strings.HasPrefix(user, "@ana:"):
		body = `{"joined":false}`
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

// TestOurNameIsAnother: homeserver.server_name is the name of the host and not of the
// server. Who leaves the room leaves its call, and nobody else does.
func TestOurNameIsAnother(t *testing.T) {
	for name, ends := range map[string]bool{"matrix.own.example": false, "own.example": true} {
		migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
			home := &ownExample{}
			w := inACall(t, db, func(o *focus.Options) {
				required(o)
				client := homeserver.NewClient(homeserver.Options{URL: "http://hs", Token: "t", Transport: home})
				o.Members = homeserver.NewMembership(client, name, zerolog.Nop())
			})
			home.anaLeft.Store(true)
			w.sweep(t)
			require.ElementsMatch(t, []matrixrtc.Identity{anaHere, anaThere}, w.removed)

			home.allLeft.Store(true)
			require.NoError(t, w.MemberGone(t.Context(), "!roomid:example.com", "@ana:own.example"))
			require.Equal(t, ends, slices.Contains(w.removed, boHere), name)
			require.Equal(t, ends, errors.Is(w.admit(t, w.ticket(boHere)), focus.ErrNotAdmitted), name)
		})
	}
}

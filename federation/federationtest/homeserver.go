// Package federationtest is a homeserver for tests and benchmarks: it answers
// the one route by which OpenID tokens are proved, where it is and what it signs
// with, over TLS with an authority of its own, and can misbehave in the ways that
// a hostile one would. Everything is safe for concurrent use and ends with the test.
package federationtest

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"maunium.net/go/mautrix/federation"
)

// Homeserver is one homeserver on 127.0.0.1. Its name is that address with a
// port, so that nobody has to look it up.
type Homeserver struct {
	server      *httptest.Server
	mux         *http.ServeMux
	ca          string
	requests    atomic.Int64
	wellKnowns  atomic.Int64
	connections atomic.Int64
	keyRequests atomic.Int64
	ended       chan struct{}

	mu        sync.Mutex
	tokens    map[string]string
	misbehave Misbehaviour
	wellKnown Misbehaviour

	key           *federation.SigningKey
	keysMisbehave Misbehaviour
}

// New starts a homeserver that ends with the test.
func New(t testing.TB, certificate Certificate) *Homeserver {
	t.Helper()
	h := &Homeserver{tokens: map[string]string{}, ended: make(chan struct{}), key: federation.GenerateSigningKey()}
	pair, ca := issue(t, certificate)
	h.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(h.ca, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	h.mux = http.NewServeMux()
	h.Handle("GET /_matrix/federation/v1/openid/userinfo", h.userinfo)
	h.Handle("GET /.well-known/matrix/server", h.serverDocument)
	h.Handle("GET /_matrix/key/v2/server", h.serverKeys)
	h.server = httptest.NewUnstartedServer(h.mux)
	h.server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	h.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			h.connections.Add(1)
		}
	}
	h.server.StartTLS()
	t.Cleanup(func() {
		close(h.ended) // lets go of answers that would never end
		h.server.Close()
	})
	return h
}

// Handle adds a route, as [http.ServeMux] knows them.
func (h *Homeserver) Handle(pattern string, serve http.HandlerFunc) { h.mux.HandleFunc(pattern, serve) }

// Name is the server name: 127.0.0.1 and a port. The certificate is good for
// names under .test as well, where the test has a DNS for them.
func (h *Homeserver) Name() string { return h.server.Listener.Addr().String() }

// CAFile is the authority that a client has to trust.
func (h *Homeserver) CAFile() string { return h.ca }

// Port is where it listens, on 127.0.0.1.
func (h *Homeserver) Port() string {
	_, port, _ := net.SplitHostPort(h.Name())
	return port
}

// User is the ID of a user of this homeserver.
func (h *Homeserver) User(localpart string) string { return "@" + localpart + ":" + h.Name() }

// Issue returns a new OpenID token of the user.
func (h *Homeserver) Issue(localpart string) string {
	return h.IssueTo(h.User(localpart))
}

// IssueTo returns a new OpenID token of any user ID.
func (h *Homeserver) IssueTo(user string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	token := rand.Text()
	h.tokens[token] = user
	return token
}

// Misbehave makes all later answers go wrong; nil makes them right again.
func (h *Homeserver) Misbehave(m Misbehaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.misbehave = m
}

// WellKnown makes that the answer to requests for .well-known/matrix/server,
// which is 404 without.
func (h *Homeserver) WellKnown(m Misbehaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wellKnown = m
}

// WellKnownRequests is how many such requests came in.
func (h *Homeserver) WellKnownRequests() int { return int(h.wellKnowns.Load()) }

// Requests is how many userinfo requests came in.
func (h *Homeserver) Requests() int { return int(h.requests.Load()) }

// Connections is how many connections were made.
func (h *Homeserver) Connections() int { return int(h.connections.Load()) }

func (h *Homeserver) userinfo(w http.ResponseWriter, r *http.Request) {
	h.requests.Add(1)
	h.mu.Lock()
	misbehave := h.misbehave
	user, known := h.tokens[r.URL.Query().Get("access_token")]
	h.mu.Unlock()
	switch {
	case misbehave != nil:
		misbehave(h, w, r)
	case known:
		answer(w, http.StatusOK, map[string]string{"sub": user})
	default:
		answer(w, http.StatusUnauthorized, map[string]string{"errcode": "M_UNKNOWN_TOKEN", "error": "Access Token unknown or expired"})
	}
}

func (h *Homeserver) serverDocument(w http.ResponseWriter, r *http.Request) {
	h.wellKnowns.Add(1)
	h.mu.Lock()
	wellKnown := h.wellKnown
	h.mu.Unlock()
	if wellKnown == nil {
		http.NotFound(w, r)
		return
	}
	wellKnown(h, w, r)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

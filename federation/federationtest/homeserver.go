// Package federationtest is a homeserver for tests: it answers the one route
// by which OpenID tokens are proved, over TLS with an authority of its own,
// and can misbehave in the ways that a hostile one would.
package federationtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Misbehaviour replaces the answer to a userinfo request. The homeserver is
// given so that the answer can depend on its name.
type Misbehaviour func(h *Homeserver, w http.ResponseWriter, r *http.Request)

// Homeserver is one homeserver on 127.0.0.1. Its name is that address with a
// port, so that nobody has to look it up.
type Homeserver struct {
	server      *httptest.Server
	ca          string
	requests    atomic.Int64
	connections atomic.Int64
	ended       chan struct{}

	mu        sync.Mutex
	tokens    map[string]string
	misbehave Misbehaviour
}

// Certificate says what is wrong with a homeserver's certificate.
type Certificate int

// The certificates.
const (
	GoodCertificate Certificate = iota
	// UnknownAuthority: signed by somebody else than CAFile says.
	UnknownAuthority
	// WrongName: for another address.
	WrongName
	// Expired: since yesterday.
	Expired
)

// New starts a homeserver that ends with the test.
func New(t testing.TB, certificate Certificate) *Homeserver {
	t.Helper()
	h := &Homeserver{tokens: map[string]string{}, ended: make(chan struct{})}
	pair, ca := issue(t, certificate)
	h.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(h.ca, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_matrix/federation/v1/openid/userinfo", h.userinfo)
	h.server = httptest.NewUnstartedServer(mux)
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

// Name is the server name: 127.0.0.1 and a port.
func (h *Homeserver) Name() string { return h.server.Listener.Addr().String() }

// CAFile is the authority that a client has to trust.
func (h *Homeserver) CAFile() string { return h.ca }

// User is the ID of a user of this homeserver.
func (h *Homeserver) User(localpart string) string { return "@" + localpart + ":" + h.Name() }

// Issue returns a new OpenID token of the user.
func (h *Homeserver) Issue(localpart string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	token := rand.Text()
	h.tokens[token] = h.User(localpart)
	return token
}

// Misbehave makes all later answers go wrong; nil makes them right again.
func (h *Homeserver) Misbehave(m Misbehaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.misbehave = m
}

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

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// Status answers with a status and no user.
func Status(status int) Misbehaviour {
	return func(_ *Homeserver, w http.ResponseWriter, _ *http.Request) {
		answer(w, status, map[string]string{"errcode": "M_UNKNOWN", "error": "no"})
	}
}

// Body answers 200 with a body. In it {name} stands for the server's name.
func Body(body string) Misbehaviour {
	return func(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.ReplaceAll(body, "{name}", h.Name()))
	}
}

// Endless answers with a good user first and then with more, without end.
func Endless(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintf(w, `{"sub":%q,"x":"`, h.User("eve"))
	filler := []byte(strings.Repeat("x", 32<<10))
	for {
		if _, err := w.Write(filler); err != nil {
			return
		}
	}
}

// Drip answers a byte now and then, without end.
func Drip(h *Homeserver, w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	_, _ = io.WriteString(w, "{")
	for {
		_, _ = io.WriteString(w, " ")
		w.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-h.ended:
			return
		}
	}
}

// Hang never answers.
func Hang(h *Homeserver, _ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-h.ended:
	}
}

// Reset breaks the connection.
func Reset(_ *Homeserver, w http.ResponseWriter, _ *http.Request) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// Redirect sends the client somewhere else; "" is to itself, for ever.
func Redirect(to string) Misbehaviour {
	return func(_ *Homeserver, w http.ResponseWriter, r *http.Request) {
		target := to
		if target == "" {
			target = r.URL.String()
		}
		http.Redirect(w, r, target, http.StatusFound)
	}
}

// HugeHeaders answers with headers of a megabyte.
func HugeHeaders(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
	for i := range 64 {
		w.Header().Set(fmt.Sprintf("X-Huge-%d", i), strings.Repeat("x", 16<<10))
	}
	_, _ = fmt.Fprintf(w, `{"sub":%q}`, h.User("eve"))
}

// issue makes an authority and a certificate for 127.0.0.1, and returns the
// pair and the authority that clients will be told to trust.
func issue(t testing.TB, kind Certificate) (tls.Certificate, []byte) {
	t.Helper()
	authority, authorityKey := selfSigned(t)
	trusted := authority
	if kind == UnknownAuthority {
		trusted, _ = selfSigned(t)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    time.Now().Add(-48 * time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"hs.test"},
	}
	switch kind {
	case WrongName:
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)}
	case Expired:
		template.NotAfter = time.Now().Add(-24 * time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusted.Raw})
}

func selfSigned(t testing.TB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test " + rand.Text()},
		NotBefore: time.Now().Add(-72 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

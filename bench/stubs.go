package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// stubs are a homeserver that knows whose every token is, and an SFU that sends
// back what it is told.
type stubs struct {
	homeserver *httptest.Server
	// clientAPI is the homeserver's other API, by which delayed events are put
	// off and sent.
	clientAPI *httptest.Server
	sfu       *process
	home
	connections atomic.Int64 // made to the homeserver
	asked       atomic.Int64 // for bodies of requests
	questions   atomic.Int64 // whether somebody is in a room
}

// home is the homeserver that a Passerelle is told of: its server name, its
// client API, and the authority of its certificate.
type home struct {
	name, url, caFile string
}

func newStubs(ctx context.Context, dir string) (*stubs, error) {
	s := &stubs{}
	s.homeserver = httptest.NewUnstartedServer(http.HandlerFunc(s.userinfo))
	s.homeserver.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	s.homeserver.StartTLS()
	s.name = s.homeserver.Listener.Addr().String()
	s.caFile = filepath.Join(dir, "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.homeserver.Certificate().Raw})
	if err := os.WriteFile(s.caFile, certificate, 0o600); err != nil {
		return nil, err
	}
	s.clientAPI = httptest.NewServer(http.HandlerFunc(s.serveClientAPI))
	s.url = s.clientAPI.URL
	var err error
	s.sfu, err = startEcho(ctx)
	return s, err
}

// userinfo: the token of user 7 begins with u7-.
func (s *stubs) userinfo(w http.ResponseWriter, r *http.Request) {
	user, _, ok := strings.Cut(r.URL.Query().Get("access_token"), "-")
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"sub":"@%s:%s"}`, user, s.name)
}

// serveClientAPI says yes to whatever it is asked.
func (s *stubs) serveClientAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/_matrix/client/versions" {
		_, _ = w.Write([]byte(`{"versions":["v1.12"],"unstable_features":{"org.matrix.msc4140":true}}`))
		return
	}
	if strings.HasSuffix(r.URL.Path, "/is_joined") {
		s.questions.Add(1)
	}
	// Everybody is in every room, and every delayed event is there.
	_, _ = w.Write([]byte(`{"joined":true}`))
}

func (s *stubs) close() {
	s.clientAPI.Close()
	s.sfu.stop()
	s.homeserver.Close()
}

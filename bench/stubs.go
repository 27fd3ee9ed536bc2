package main

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
)

// stubs are a homeserver that knows whose every token is, and an SFU that sends
// back what it is told.
type stubs struct {
	// federation and clientAPI are the homeserver's two APIs: by the one it says
	// whose a token is, by the other who is in a room, and delayed events are put
	// off and sent.
	federation, clientAPI counted
	sfu                   *process
	home
	asked     atomic.Int64 // for bodies of requests
	questions atomic.Int64 // whether somebody is in a room
}

// home is the homeserver that a Passerelle is told of: its server name, its
// client API, and the authority of its certificate.
type home struct {
	name, url, caFile string
}

// counted counts the connections that it takes.
type counted struct {
	net.Listener
	taken *atomic.Int64
}

// Accept implements [net.Listener].
func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.taken.Add(1)
	}
	return conn, err
}

func listen() (counted, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	return counted{l, new(atomic.Int64)}, err
}

func newStubs(ctx context.Context, dir string) (s *stubs, err error) {
	s = &stubs{home: home{caFile: filepath.Join(dir, "stub-ca.pem")}}
	if s.federation, err = listen(); err != nil {
		return nil, err
	}
	if s.clientAPI, err = listen(); err != nil {
		return nil, err
	}
	s.name, s.url = s.federation.Addr().String(), "http://"+s.clientAPI.Addr().String()
	certificates := httptest.NewTLSServer(http.NotFoundHandler())
	certificates.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificates.Certificate().Raw})
	if err := os.WriteFile(s.caFile, certificate, 0o600); err != nil {
		return nil, err
	}
	go serve(tls.NewListener(s.federation, certificates.TLS), s.userinfo)
	go serve(s.clientAPI, s.sayClientAPI)
	s.sfu, err = startEcho(ctx)
	return s, err
}

// connections counts those made to the homeserver.
func (s *stubs) connections() int64 { return s.federation.taken.Load() }

// userinfo: the token of user 7 begins with u7-.
func (s *stubs) userinfo(target string) (status int, body string) {
	_, query, _ := strings.Cut(target, "?")
	values, err := url.ParseQuery(query)
	if user, _, ok := strings.Cut(values.Get("access_token"), "-"); ok && err == nil {
		return http.StatusOK, fmt.Sprintf(`{"sub":"@%s:%s"}`, user, s.name)
	}
	return http.StatusUnauthorized, `{"errcode":"M_UNKNOWN_TOKEN"}`
}

// sayClientAPI says yes to whatever it is asked.
func (s *stubs) sayClientAPI(target string) (status int, body string) {
	if target == "/_matrix/client/versions" {
		return http.StatusOK, `{"versions":["v1.12"],"unstable_features":{"org.matrix.msc4140":true}}`
	}
	if path, _, _ := strings.Cut(target, "?"); strings.HasSuffix(path, "/is_joined") {
		s.questions.Add(1)
	}
	// Everybody is in every room, and every delayed event is there.
	return http.StatusOK, `{"joined":true}`
}

func (s *stubs) close() {
	s.clientAPI.Close()
	s.sfu.stop()
	s.federation.Close()
}

package federation

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// document answers every request for a .well-known document with itself.
type document []byte

func (d document) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, ContentLength: -1,
		Body: io.NopCloser(bytes.NewReader(d)),
	}, nil
}

// FuzzServerDocument reads any .well-known/matrix/server. Whatever it says, the
// place that comes of it is a server name and addresses that name a host and a
// port; without a word of use in it, it is the server's own name.
func FuzzServerDocument(f *testing.F) {
	for _, seed := range []string{
		`{"m.server":"matrix.example:443"}`, `{"m.server":"matrix.example"}`, `{"m.server":"1.2.3.4"}`, `{"m.server":"[::1]:80"}`,
		`{"m.server":"127.0.0.1:6379"}`, `{"m.server":"a:0"}`, `{"m.server":"a:65536"}`, `{"m.server":"a b"}`, `{"m.server":"https://a/"}`,
		`{"m.server":"a\u0000:1"}`, `{"m.server":"a@b:1"}`, `{"m.server":""}`, `{"m.server":null}`, `{"m.server":["a"]}`, `[]`, `{`, ``,
		`{"m.server":"a:1","m.server":"b:2"}`, `{"M.SERVER":"a:1"}`, `{"m.server":"2130706433:1"}`, strings.Repeat(`{"m.server":`, 100),
	} {
		f.Add([]byte(seed))
	}
	const name = "hs.example"
	f.Fuzz(func(t *testing.T, body []byte) {
		r := &resolver{
			wellKnown: &http.Client{Transport: document(body)},
			dns: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, net.ErrClosed
			}},
		}
		l, err := r.resolve(t.Context(), name)
		if err != nil {
			t.Fatalf("a document cannot fail the look-up: %v", err)
		}
		p, keep := l.place, l.keep
		if !validServerName(p.host) || p.tlsName == "" || strings.ContainsAny(p.host, "/@?#\r\n ") {
			t.Fatalf("%q, TLS %q, is no server name", p.host, p.tlsName)
		}
		if keep < doubtedFor || keep > 24*time.Hour {
			t.Fatalf("kept for %v", keep)
		}
		if len(p.addresses) == 0 || len(p.addresses) > maxAddresses {
			t.Fatalf("%d addresses", len(p.addresses))
		}
		for _, address := range p.addresses {
			host, port, err := net.SplitHostPort(address)
			number, errPort := strconv.ParseUint(port, 10, 16)
			if err != nil || errPort != nil || host == "" || number == 0 {
				t.Fatalf("%q is no address", address)
			}
		}
	})
}

package app

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

// FuzzForwarded sends any X-Forwarded-For. Nobody but a proxy of ours is
// believed; of one, the client is an address that stands in the header and is
// no proxy's, or the proxy itself.
func FuzzForwarded(f *testing.F) {
	f.Add("127.0.0.1:1", "192.0.2.1", "192.0.2.2, 127.0.0.9")
	f.Add("192.0.2.9:1", "192.0.2.1", "")
	f.Add("[::1]:1", "2001:db8::1", "::ffff:192.0.2.1, fe80::1%eth0")
	f.Add("@", "unknown", "192.0.2.1:80")
	f.Add("127.0.0.1:1", ",,,", " , \x00")
	f.Add("127.0.0.1:1", strings.Repeat("1.1.1.1,", 1000), "127.0.0.1")
	trusted, err := newProxies([]string{"127.0.0.0/8", "::1/128"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, remote, first, second string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sfu/get", nil)
		r.RemoteAddr = remote
		r.Header["X-Forwarded-For"] = []string{first, second}
		client := trusted.client(r)
		if client == remote {
			return
		}
		connected, err := netip.ParseAddrPort(remote)
		if err != nil || !trusted.include(connected.Addr()) {
			t.Fatalf("%q, not a proxy, was believed: %q", remote, client)
		}
		believed, err := netip.ParseAddrPort(client)
		if err != nil || trusted.include(believed.Addr()) {
			t.Fatalf("%q is no client", client)
		}
		for hop := range strings.SplitSeq(first+","+second, ",") {
			if address, err := netip.ParseAddr(strings.TrimSpace(hop)); err == nil && address.Unmap() == believed.Addr() {
				return
			}
		}
		t.Fatalf("%q does not stand in %q, %q", client, first, second)
	})
}

// FuzzPath asks for any path. One that is served ends in the route that serves
// it, and no way round leads to a route that is not in the list.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"/sfu/get", "//sfu/get", "/x/get_token/", "/sfu/get/..", "/sfu%2fget", "/rtc/v1/validate", "/twirp/livekit.RoomService/DeleteRoom",
		"", "/", "/rtc/../metrics", "/../../sfu/get", "/sfu/get\x00", "*", "/\xff/rtc",
	} {
		f.Add("POST", seed)
	}
	f.Add("OPTIONS", "/rtc")
	f.Add("HEAD", "/")
	served := ""
	p := &public{prefix: "/", log: zerolog.Nop()}
	for _, route := range []string{"/sfu/get", "/get_token", "/delegate_delayed_leave", "/rtc", "/rtc/v1", "/rtc/validate", "/rtc/v1/validate"} {
		p.routes = append(p.routes, publicRoute{route, "POST, OPTIONS", func(w http.ResponseWriter, _ *http.Request, route string) {
			served = route
			w.WriteHeader(http.StatusTeapot)
		}})
	}
	f.Fuzz(func(t *testing.T, method, asked string) {
		served = ""
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.Method, r.URL.Path = method, asked
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Header().Get("Access-Control-Allow-Origin") != "*" {
			t.Fatal("no CORS header")
		}
		clean := path.Clean("/" + asked)
		switch w.Code {
		case http.StatusTeapot:
			if served == "" || !strings.HasSuffix(clean, served) {
				t.Fatalf("%q was served as %q", asked, served)
			}
		case http.StatusOK:
			if method != http.MethodHead && method != http.MethodOptions {
				t.Fatalf("%s %q: 200", method, asked)
			}
		case http.StatusNotFound:
		default:
			t.Fatalf("%s %q: %d", method, asked, w.Code)
		}
	})
}

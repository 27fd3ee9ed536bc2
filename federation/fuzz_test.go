package federation_test

import (
	"encoding/json"
	"net"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	mautrix "maunium.net/go/mautrix/federation"

	"passerelle/config"
	"passerelle/federation"
)

func FuzzPolicy(f *testing.F) {
	f.Add("own.example", "*.example")
	f.Add("127.0.0.1:1", "127.0.0.?:*")
	f.Add("[::1]:1", "[::1]")
	f.Add("a.b.c", "*?*.?*")
	f.Add("OWN.example", "own.EXAMPLE")
	f.Add("aba", "ab*ba")
	f.Fuzz(func(t *testing.T, server, pattern string) {
		policy, err := federation.NewPolicy([]config.FederationRule{{Server: pattern, Access: "join"}})
		if err != nil {
			return
		}
		want := federation.ValidServerName(server) && matches(strings.ToLower(pattern), strings.ToLower(server))
		if got := policy.Access(server).Join; got != want {
			t.Fatalf("%q by %q: got %t, want %t", server, pattern, got, want)
		}
	})
}

// matches is the meaning of a glob, without regard to time: the row says for
// each beginning of the name whether the pattern so far matches it.
func matches(pattern, name string) bool {
	row := make([]bool, len(name)+1)
	row[0] = true
	for _, p := range []byte(pattern) {
		next := make([]bool, len(name)+1)
		next[0] = row[0] && p == '*'
		for i := range len(name) {
			switch p {
			case '*':
				next[i+1] = next[i] || row[i+1]
			case '?':
				next[i+1] = row[i]
			default:
				next[i+1] = row[i] && p == name[i]
			}
		}
		row = next
	}
	return row[len(name)]
}

func FuzzServerName(f *testing.F) {
	for _, seed := range []string{
		"matrix.org", "matrix.org:8448", "1.2.3.4", "1.2.3.4:1", "[::1]", "[::1]:65535", "[1.2.3.4]", "a:0", "a:00001", "a:000001", "a:65536",
		"[::1%eth0]", "a:", ":1", "[", "[:80", "é.example", "a/b", "a@b", "a b", "", strings.Repeat("a", 256),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !federation.ValidServerName(name) {
			return
		}
		if _, _, ok := mautrix.ParseServerName(name); !ok || len(name) > 255 {
			t.Fatalf("%q is not one by mautrix' parser", name)
		}
		u, err := url.Parse("https://" + name + "/x?y")
		if err != nil || u.Host != name || u.Path != "/x" || u.User != nil || u.RawQuery != "y" {
			t.Fatalf("%q in an address means something else: %v, %v", name, u, err)
		}
		if port := u.Port(); port != "" {
			if _, _, err := net.SplitHostPort(name); err != nil || strings.Trim(port, "0") == "" {
				t.Fatalf("%q: port %q, %v", name, port, err)
			}
		}
	})
}

func FuzzSubject(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"@a:hs.example:8448"}`, `{"sub":"@a:hs.example"}`, `{"sub":"@a:b:hs.example:8448"}`, `{"sub":"@:hs.example:8448"}`,
		`{"SUB":"@a:hs.example:8448"}`, `{"sub":"@a\ud800:hs.example:8448"}`, `{"sub":null}`, `{"sub":1}`, `[]`, `{"sub":"@@a:hs.example:8448"}`,
		"{\"sub\":\"@\xff:hs.example:8448\"}", `{"sub":"@a:hs.example:8448","sub":"@b:evil.example"}`,
	} {
		f.Add([]byte(seed))
	}
	const server = "hs.example:8448"
	f.Fuzz(func(t *testing.T, body []byte) {
		user, err := federation.Subject(body, server)
		if err != nil {
			if user != "" {
				t.Fatalf("%q beside an error", user)
			}
			return
		}
		localpart, ok := strings.CutSuffix(string(user), ":"+server)
		switch {
		case !json.Valid(body):
			t.Fatalf("%q from what is not JSON", user)
		case !ok || !strings.HasPrefix(localpart, "@") || len(localpart) < 2 || strings.Contains(localpart, ":"):
			t.Fatalf("%q is no user of %s", user, server)
		case len(user) > 255 || !utf8.ValidString(string(user)) || strings.ContainsAny(string(user), "\x00\n\r\x7f"):
			t.Fatalf("%q is no user ID", user)
		case user.Homeserver() != server:
			t.Fatalf("%q: other code reads another server, %s", user, user.Homeserver())
		}
	})
}

package config_test

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"passerelle/config"
)

// numbered are n texts in which each has its number.
func numbered(n int, format string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range n {
			if !yield(fmt.Sprintf(format, i)) {
				return
			}
		}
	}
}

func TestValidateFederation(t *testing.T) {
	rules := func(r ...config.FederationRule) change {
		return func(c *config.Config) { c.Federation.Rules = r }
	}
	server := func(s string) change { return rules(config.FederationRule{Server: s, Access: "join"}) }
	list := func(servers ...string) change {
		r := make([]config.FederationRule, len(servers))
		for i, s := range servers {
			r[i] = config.FederationRule{Server: s, Access: "join"}
		}
		return rules(r...)
	}
	many := func(n int) change {
		servers := make([]string, n)
		for i := range servers {
			servers[i] = strconv.Itoa(i)
		}
		return list(servers...)
	}
	access := func(s string, publish bool) change {
		return rules(config.FederationRule{Server: "a", Access: s, Publish: publish})
	}
	networks := func(s ...string) change { return func(c *config.Config) { c.Federation.AllowNetworks = s } }
	files := func(s ...string) change { return func(c *config.Config) { c.Federation.CAFiles = s } }
	timeout := func(d time.Duration) change { return func(c *config.Config) { c.Federation.Timeout = d } }
	peer := func(server string, r config.FederationRule) change {
		r.Server, r.Access = server, "join"
		return rules(r)
	}
	signed := func(name string) change {
		return func(c *config.Config) {
			c.Federation.SignedRequests = true
			if name != "" {
				c.Homeserver = config.Homeserver{ServerName: name, URL: "http://127.0.0.1:8008", ASToken: goodSecret}
			}
		}
	}
	const publicKey = "l8Hft5qXKn1vfHrg3p4+W8gELQVo8N13JkluMfmn2sQ"
	const noServer = "(write the name alone, without scheme and path)"
	check(t, []rule{
		{"server of a rule", []change{
			server("example.org"), server("*"), server("*.example.org"), server("m?.example.org:8448"), server("192.0.2.1:*"),
			server("[2001:db8::1]:8448"), server("[2001:*]"), server(strings.Repeat("a", 255)),
		}, []wrong{
			{"federation.rules[0].server: is missing", server("")},
			{`federation.rules[0].server: "https://example.org" is not a server name ` + noServer, server("https://example.org")},
			{`federation.rules[0].server: "example.org/path" is not a server name`, server("example.org/path")},
			{`federation.rules[0].server: "@a:example.org" is not a server name`, server("@a:example.org")},
			{`federation.rules[0].server: "exämple.org" is not a server name`, server("exämple.org")},
			{`federation.rules[0].server: "a b" is not a server name`, server("a b")},
			{`federation.rules[0].server: "a:b" is not a server name`, server("a:b")},
			{`federation.rules[0].server: "2001:db8::1" is not a server name`, server("2001:db8::1")},
			{"federation.rules[0].server: has capital letters (write example.org)", server("Example.org")},
			{"federation.rules[0].server: is longer than a server name can be (write 255 characters at most)", server(strings.Repeat("a", 256))},
		}},
		{"rules that never decide", []change{
			list("a", "a:8448"), list("a:8448", "a"), list("b.a", "*.a", "*"), list("?", "*"), list("a?", "a*"), list("*.a", "a"),
			list("a*b", "a*c"), list("*a*", "b*"), list("?a", "*a"), list("a*b", "ab*"), list("a", "?"), list("a.*", "*.a"),
		}, []wrong{
			{"federation.rules[1].server: a never decides: a stands above it and matches all of it (put it above federation.rules[0], or remove it)", list("a", "a")},
			{"federation.rules[2].server: b never decides: * stands above it and matches all of it (put it above federation.rules[1]", list("a", "*", "b")},
			{"federation.rules[1].server: b.a never decides", list("*.a", "b.a")},
			{"federation.rules[1].server: *.b.a never decides", list("*.a", "*.b.a")},
			{"federation.rules[1].server: ** never decides", list("*", "**")},
			{"federation.rules[1].server: * never decides", list("**", "*")},
			{"federation.rules[1].server: ? never decides", list("*", "?")},
			{"federation.rules[1].server: a?c never decides", list("a??", "a?c")},
			{"federation.rules[1].server: axbxb never decides", list("a*b", "axbxb")},
			{"federation.rules[1].server: a*b:8448 never decides", list("a*b:*", "a*b:8448")},
		}},
		{"many rules", []change{many(1000)}, []wrong{
			{"federation.rules: has more than 1000 rules", many(1001)},
		}},
		{"access of a rule", []change{
			access("deny", false), access("join", false), access("join", true), access("create", false), access("create", true),
		}, []wrong{
			{"federation.rules[0].access: is missing (write deny, join or create)", access("", false)},
			{`federation.rules[0].access: "Join" is not known here`, access("Join", false)},
			{"federation.rules[0].publish: lends publishing to those who are denied", access("deny", true)},
		}},
		{"transports of a rule", []change{
			peer("a:8448", config.FederationRule{Transports: []string{"wss://rtc.a", "ws://10.0.0.1:7880/path"}}),
			peer("a", config.FederationRule{Transports: slices.Collect(numbered(8, "wss://rtc%d.a"))}),
		}, []wrong{
			{`federation.rules[0].transports: "https://rtc.a" is not the address of a media server (write the url that its homeserver announces, such as wss://rtc.example.gouv.fr)`, peer("a", config.FederationRule{Transports: []string{"https://rtc.a"}})},
			{`federation.rules[0].transports: "" is not the address`, peer("a", config.FederationRule{Transports: []string{""}})},
			{`federation.rules[0].transports: "rtc.a" is not the address`, peer("a", config.FederationRule{Transports: []string{"rtc.a"}})},
			{"federation.rules[0].transports: has an address that is longer than a client can ask for (write 255 characters at most)", peer("a", config.FederationRule{Transports: []string{"wss://rtc.a/" + strings.Repeat("x", 255)}})},
			{`federation.rules[0].transports: "wss://u@rtc.a" holds more than scheme, host and path`, peer("a", config.FederationRule{Transports: []string{"wss://u@rtc.a"}})},
			{`federation.rules[0].transports: "wss://rtc.a?" holds more`, peer("a", config.FederationRule{Transports: []string{"wss://rtc.a?"}})},
			{`federation.rules[0].transports: "wss://rtc.a#" holds more`, peer("a", config.FederationRule{Transports: []string{"wss://rtc.a#"}})},
			{`federation.rules[0].transports: wss://rtc.a stands twice`, peer("a", config.FederationRule{Transports: []string{"wss://rtc.a", "wss://rtc.a"}})},
			{"federation.rules[0].transports: lists more than 8", peer("a", config.FederationRule{Transports: slices.Collect(numbered(9, "wss://rtc%d.a"))})},
			{"federation.rules[0].transports: is for one server, and *.a names many", peer("*.a", config.FederationRule{Transports: []string{"wss://rtc.a"}})},
			{"federation.rules[0].transports: is for servers that may join", rules(config.FederationRule{Server: "a", Access: "deny", Transports: []string{"wss://rtc.a"}})},
		}},
		{"keys of a rule", []change{
			peer("a", config.FederationRule{SigningKeys: []string{"ed25519:a_RXGa " + publicKey, "ed25519:b-2 " + publicKey}}),
		}, []wrong{
			{`federation.rules[0].signing_keys: "ed25519:1" is not a public key (write ed25519:NAME KEY as`, peer("a", config.FederationRule{SigningKeys: []string{"ed25519:1"}})},
			{`federation.rules[0].signing_keys: "ed25519:1 ` + publicKey + `=" is not a public key`, peer("a", config.FederationRule{SigningKeys: []string{"ed25519:1 " + publicKey + "="}})},
			{`federation.rules[0].signing_keys: "ed25519:1 ` + publicKey[1:] + `" is not a public key`, peer("a", config.FederationRule{SigningKeys: []string{"ed25519:1 " + publicKey[1:]}})},
			{`federation.rules[0].signing_keys: "ed25519 1 ` + publicKey + `" is not a public key`, peer("a", config.FederationRule{SigningKeys: []string{"ed25519 1 " + publicKey}})},
			{`federation.rules[0].signing_keys: "rsa:1 ` + publicKey + `" is not a public key`, peer("a", config.FederationRule{SigningKeys: []string{"rsa:1 " + publicKey}})},
			{"federation.rules[0].signing_keys: has two keys with the name ed25519:1", peer("a", config.FederationRule{SigningKeys: []string{"ed25519:1 " + publicKey, "ed25519:1 " + publicKey}})},
			{"federation.rules[0].signing_keys: is for one server, and a? names many", peer("a?", config.FederationRule{SigningKeys: []string{"ed25519:1 " + publicKey}})},
			{"federation.rules[0].signing_keys: lists more than 8", peer("a", config.FederationRule{SigningKeys: slices.Collect(numbered(9, "ed25519:%d "+publicKey))})},
		}},
		{"signed requests", []change{signed("example.org")}, []wrong{
			{"homeserver.server_name: is missing (write the name that other servers sign their requests to", signed("")},
		}},
		{"networks", []change{networks("127.0.0.0/8", "::1/128", "0.0.0.0/0")}, []wrong{
			{`federation.allow_networks: "127.0.0.1" is not an address range (write a CIDR such as 10.1.0.0/16)`, networks("10.0.0.0/8", "127.0.0.1")},
			{`federation.allow_networks: "10.0.0.0/33" is not an address range`, networks("10.0.0.0/33")},
			{"federation.allow_networks: 10.0.0.1/8 is not the beginning of its range (write 10.0.0.0/8)", networks("10.0.0.1/8")},
		}},
		{"authorities", []change{files(write(t, "a.pem", authority(t), 0o644), write(t, "b.pem", authority(t)+authority(t), 0o600))}, []wrong{
			{"federation.ca_files: testdata/none.pem: no such file or directory (name PEM files", files("testdata/none.pem")},
			{"federation.ca_files: testdata: is a directory", files("testdata")},
			{"federation.ca_files: validate_test.go holds no certificate", files("validate_test.go")},
		}},
		{"timeout", []change{timeout(100 * time.Millisecond), timeout(time.Minute)}, []wrong{
			{"federation.timeout: is out of range (write a duration from 100ms to 1m)", timeout(100*time.Millisecond - 1)},
			{"federation.timeout: is out of range (write a duration from 100ms to 1m)", timeout(time.Minute + 1)},
		}},
	})
}

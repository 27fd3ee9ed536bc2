package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/config"
)

// authority is a new certificate of a certificate authority, as PEM.
func authority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// change is what a case does to a valid configuration.
type change func(*config.Config)

// rule is one rule of the validator, from both sides.
type rule struct {
	name string
	// good changes are valid.
	good []change
	// bad changes are not.
	bad []wrong
}

// wrong is a change that makes one mistake. want is the whole of it, or its
// beginning.
type wrong struct {
	want   string
	change change
}

func external(c *config.Config) {
	c.LiveKit.Mode, c.LiveKit.URL, c.LiveKit.Key, c.LiveKit.Secret = "external", "ws://127.0.0.1:7880", "APIx", goodSecret
}

func check(t *testing.T, rules []rule) {
	t.Helper()
	apply := func(f change) error {
		c := config.Default()
		c.Server.PublicURL = "https://rtc.example.org"
		c.Focus.Membership = "unverified"
		f(&c)
		return c.Validate()
	}
	require.NoError(t, apply(func(*config.Config) {}))
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for i, f := range r.good {
				require.NoError(t, apply(f), "good change %d", i)
			}
			for _, bad := range r.bad {
				want, got := bad.want, lines(t, apply(bad.change))
				require.Len(t, got, 1, want)
				require.True(t, strings.HasPrefix(got[0], want), "want %s\n got %s", want, got[0])
			}
		})
	}
}

func TestValidateServer(t *testing.T) {
	listen := func(public, private string) change {
		return func(c *config.Config) { c.Server.Listen, c.Server.PrivateListen = public, private }
	}
	url := func(s string) change { return func(c *config.Config) { c.Server.PublicURL = s } }
	stop := func(d time.Duration) change { return func(c *config.Config) { c.Server.StopTimeout = d } }
	ports := func(listen string, api, udp, tcp int) change {
		return func(c *config.Config) {
			c.Server.Listen = listen
			e := &c.LiveKit.Embedded
			e.Port, e.UDPPort, e.TCPPort = api, udp, tcp
		}
	}
	const noListen = "server.listen: is not an address to listen on (write an IP address and a port, such as :8080)"
	check(t, []rule{
		{"addresses", []change{
			listen(":8080", ":9090"), listen("127.0.0.1:0", "[::1]:65535"), listen("[::]:1", "0.0.0.0:2"),
		}, []wrong{
			{noListen, listen("8080", ":9090")},
			{noListen, listen(":65536", ":9090")},
			{noListen, listen(":-1", ":9090")},
			{noListen, listen("rtc.example.org:8080", ":9090")},
			{noListen, listen(":http", ":9090")},
			{noListen, listen("", ":9090")},
			{"server.private_listen: is not an address to listen on", listen(":8080", "9090")},
		}},
		{"listeners in each other's way", []change{
			listen("192.0.2.1:8080", "127.0.0.1:8080"), listen(":0", ":0"), listen("127.0.0.1:1", "[::1]:1"),
			ports("192.0.2.1:7880", 7880, 7882, 7881), ports(":443", 7880, 443, 0), ports(":8080", 0, 0, 0), ports(":8080", 7880, 7881, 7881),
		}, []wrong{
			{"server.private_listen: has the port of server.listen (write another port)", listen(":8080", "127.0.0.1:8080")},
			{"server.private_listen: has the port of server.listen (write another port)", listen("127.0.0.1:8080", "0.0.0.0:8080")},
			{"server.private_listen: has the port of server.listen (write another port)", listen("192.0.2.1:8080", "192.0.2.1:8080")},
			{"server.private_listen: has the port of server.listen (write another port)", listen("192.0.2.1:8080", "[::]:8080")},
			{"livekit.embedded.port: has the port of server.listen", ports(":7880", 7880, 7882, 7881)},
			{"livekit.embedded.port: has the port of server.listen", ports("127.0.0.1:7880", 7880, 7882, 7881)},
			{"livekit.embedded.tcp_port: has the port of livekit.embedded.port", ports(":8080", 7880, 7882, 7880)},
			{"livekit.embedded.tcp_port: has the port of server.listen", ports("192.0.2.1:443", 7880, 7882, 443)},
		}},
		{"public URL", []change{
			url("https://rtc.example.org"), url("https://rtc.example.org:8443/a/b"), url("https://192.0.2.1"),
			url("http://localhost:8080"), url("http://127.0.0.1:8080/rtc"), url("http://[::1]"),
		}, []wrong{
			{"server.public_url: is missing (write the address that clients reach, such as https://rtc.example.gouv.fr)", url("")},
			{"server.public_url: is missing (write the address that clients reach, such as https://rtc.example.gouv.fr)", url("")},
			{"server.public_url: is not an address", url("rtc.example.org")},
			{"server.public_url: is not an address", url("https://:443")},
			{"server.public_url: is not an address", url("https:rtc.example.org")},
			{"server.public_url: is not an address", url("https://rtc.example.org:port")},
			{`server.public_url: has the scheme "wss"`, url("wss://rtc.example.org")},
			{"server.public_url: is not encrypted", url("http://rtc.example.org")},
			{"server.public_url: holds more than scheme, host and path", url("https://rtc.example.org?a=b")},
			{"server.public_url: holds more than scheme, host and path", url("https://rtc.example.org/#")},
			{"server.public_url: holds more than scheme, host and path", url("https://rtc.example.org?")},
			{"server.public_url: holds more than scheme, host and path", url("https://me:hunter2@rtc.example.org")},
			{"server.public_url: ends in a slash, and clients compare addresses as texts (write https://rtc.example.org)", url("https://rtc.example.org/")},
			{"server.public_url: has a path that could be written in several ways", url("https://rtc.example.org/a/../b")},
			{"server.public_url: has a path that could be written in several ways", url("https://rtc.example.org/a%2Fb")},
			{"server.public_url: has a path that could be written in several ways", url("https://rtc.example.org//a")},
		}},
		{"data folder", nil, []wrong{
			{"server.data_dir: is missing (name", func(c *config.Config) { c.Server.DataDir = "" }},
		}},
		{"stop timeout", []change{stop(time.Second), stop(10 * time.Minute)}, []wrong{
			{"server.stop_timeout: is out of range (write a duration from 1s to 10m)", stop(time.Second - 1)},
			{"server.stop_timeout: is out of range (write a duration from 1s to 10m)", stop(10*time.Minute + 1)},
		}},
	})
}

func TestValidateLogAndDatabase(t *testing.T) {
	level := func(s string) change { return func(c *config.Config) { c.Log.Level = s } }
	format := func(s string) change { return func(c *config.Config) { c.Log.Format = s } }
	conns := func(n int) change { return func(c *config.Config) { c.Database.MaxOpenConns = n } }
	database := func(d config.Database) change {
		return func(c *config.Config) { d.MaxOpenConns = 1; c.Database = d }
	}
	check(t, []rule{
		{"log level", []change{level("trace"), level("debug"), level("info"), level("warn"), level("error")}, []wrong{
			{`log.level: "fatal" is not known here (write trace, debug, info, warn or error)`, level("fatal")},
			{`log.level: "INFO" is not known here`, level("INFO")},
			{"log.level: is missing", level("")},
		}},
		{"log format", []change{format("auto"), format("json"), format("console")}, []wrong{
			{`log.format: "text" is not known here (write auto, json or console)`, format("text")},
		}},
		{"database", []change{
			database(config.Database{Type: "sqlite", Path: "x"}),
			database(config.Database{Type: "postgres", URI: "postgres://u@h/d"}), database(config.Database{Type: "postgres", URI: "postgresql:///d?host=/run"}),
			database(config.Database{Type: "postgres", URI: "host=/run dbname=d"}), database(config.Database{Type: "postgres", URIFile: "file"}),
		}, []wrong{
			{`database.type: "sqlite3" is not known here (write sqlite or postgres)`, database(config.Database{Type: "sqlite3", Path: "x"})},
			{"database.path: is missing", database(config.Database{Type: "sqlite"})},
			{"database.uri: is for PostgreSQL", database(config.Database{Type: "sqlite", Path: "x", URI: "postgres://h/d"})},
			{"database.uri: is for PostgreSQL", database(config.Database{Type: "sqlite", Path: "x", URIFile: "x"})},
			{"database.uri: is missing", database(config.Database{Type: "postgres", Path: "x"})},
			{"database.uri: is not a connection", database(config.Database{Type: "postgres", URI: "mysql://h/d"})},
			{"database.uri: is not a connection", database(config.Database{Type: "postgres", URI: "postgres://h:port/d"})},
			{"database.uri: is not a connection", database(config.Database{Type: "postgres", URI: "database"})},
		}},
		{"connections", []change{conns(1), conns(1000)}, []wrong{
			{"database.max_open_conns: is out of range (write a number from 1 to 1000)", conns(0)},
			{"database.max_open_conns: is out of range (write a number from 1 to 1000)", conns(1001)},
		}},
	})
}

// wellKnown is a document as it stands without Passerelle.
const wellKnown = `{"m.homeserver": {"base_url": "https://matrix.example.org"}, "org.matrix.msc2965.authentication": {"issuer": "https://auth.example.org/"}}`

func TestValidateAnnounce(t *testing.T) {
	with := func(document string) change {
		file := write(t, "client.json", document, 0o644)
		return func(c *config.Config) { c.Announce.WellKnownFile = file }
	}
	const key = "announce.well_known_file: "
	check(t, []rule{{"announce", []change{
		func(c *config.Config) { c.Announce.Transports = true },
		with(wellKnown),
		with(`{"m.homeserver": {"base_url": "http://127.0.0.1:8008"}}`),
	}, []wrong{
		{key + "/nowhere/client.json: no such file", func(c *config.Config) { c.Announce.WellKnownFile = "/nowhere/client.json" }},
		{key + "holds no JSON object", with("")},
		{key + "holds no JSON object", with("null")},
		{key + "holds no JSON object", with(`["m.homeserver"]`)},
		{key + "does not say where clients reach the homeserver", with("{}")},
		{key + "does not say where clients reach the homeserver", with(`{"m.homeserver": "https://matrix.example.org"}`)},
		{key + "does not say where clients reach the homeserver", with(`{"m.homeserver": {"base_url": "matrix.example.org"}}`)},
		{key + "does not say where clients reach the homeserver", with(`{"m.homeserver": {"base_url": "http://matrix.example.org"}}`)},
		{key + "has org.matrix.msc4143.rtc_foci already", with(`{"m.homeserver": {"base_url": "https://matrix.example.org"}, "org.matrix.msc4143.rtc_foci": []}`)},
		{key, with(strings.Repeat(" ", 1<<20) + wellKnown)},
	}}})
}

func TestValidateMembership(t *testing.T) {
	required := func(h config.Homeserver) change {
		return func(c *config.Config) { c.Focus.Membership, c.Homeserver = "required", h }
	}
	check(t, []rule{{"membership", []change{
		required(config.Homeserver{ServerName: "example.org", URL: "http://127.0.0.1:8008", ASToken: goodSecret}),
		func(c *config.Config) { c.Focus.Membership = "unverified" },
	}, []wrong{
		{`focus.membership: "off" is not known here (write required or unverified)`, func(c *config.Config) { c.Focus.Membership = "off" }},
		{"homeserver: is missing (it says who is in a room: ", required(config.Homeserver{})},
		{"homeserver.url: is missing", required(config.Homeserver{ServerName: "example.org", ASToken: goodSecret})},
		{"homeserver.as_token: is missing", required(config.Homeserver{ServerName: "example.org", URL: "http://127.0.0.1:8008"})},
	}}})
}

func TestValidateLiveKit(t *testing.T) {
	outside := func(f func(*config.LiveKit)) change {
		return func(c *config.Config) { external(c); f(&c.LiveKit) }
	}
	inside := func(f func(*config.LiveKit)) change { return func(c *config.Config) { f(&c.LiveKit) } }
	embedded := func(f func(*config.Embedded)) change { return func(c *config.Config) { f(&c.LiveKit.Embedded) } }
	url := func(s string) change { return outside(func(l *config.LiveKit) { l.URL = s }) }
	direct := func(s string) change {
		return inside(func(l *config.LiveKit) { l.Signalling, l.PublicURL = "direct", s })
	}
	port := func(n int) change { return embedded(func(e *config.Embedded) { e.Port = n }) }
	udp := func(n int) change { return embedded(func(e *config.Embedded) { e.UDPPort = n }) }
	tcp := func(n int) change { return embedded(func(e *config.Embedded) { e.TCPPort = n }) }
	node := func(s string) change { return embedded(func(e *config.Embedded) { e.NodeIP = s }) }
	stun := func(s ...string) change { return embedded(func(e *config.Embedded) { e.STUNServers = s }) }
	orphan := func(d time.Duration) change { return embedded(func(e *config.Embedded) { e.OrphanTimeout = d }) }
	check(t, []rule{
		{"mode", []change{external}, []wrong{
			{`livekit.mode: "cluster" is not known here (write embedded or external)`, inside(func(l *config.LiveKit) { l.Mode = "cluster" })},
		}},
		{"signalling", []change{
			inside(func(l *config.LiveKit) { l.Signalling, l.PublicURL = "direct", "wss://sfu.example.org/path" }),
		}, []wrong{
			{`livekit.signalling: "open" is not known here (write gated or direct)`, inside(func(l *config.LiveKit) { l.Signalling = "open" })},
			{"livekit.public_url: is missing", inside(func(l *config.LiveKit) { l.Signalling = "direct" })},
			{"livekit.public_url: is for clients", inside(func(l *config.LiveKit) { l.PublicURL = "wss://sfu.example.org" })},
			{"livekit.public_url: is not an address", direct("https://sfu.example.org")},
			{"livekit.public_url: is not an address", direct("wss://")},
			{"livekit.public_url: holds more than", direct("wss://sfu.example.org?a")},
			{"livekit.public_url: holds more than", direct("wss://me@sfu.example.org")},
		}},
		{"external", []change{
			url("http://10.0.0.1:7880"), url("https://sfu.example.org/path"), url("wss://sfu.example.org"),
			outside(func(l *config.LiveKit) { l.Secret, l.SecretFile = "", "file" }),
			outside(func(l *config.LiveKit) { l.Embedded = config.Embedded{} }),
		}, []wrong{
			{"livekit.url: is missing", url("")},
			{"livekit.url: is not an address", url("sfu.example.org")},
			{"livekit.url: is not an address", url("ftp://sfu.example.org")},
			{"livekit.url: is not an address", url("ws://:7880")},
			{"livekit.url: holds more than", url("ws://me@sfu.example.org")},
			{"livekit.url: holds more than", url("ws://sfu.example.org?a")},
			{"livekit.key: is missing", outside(func(l *config.LiveKit) { l.Key = "" })},
			{"livekit.secret: is missing (name a file", outside(func(l *config.LiveKit) { l.Secret = "" })},
		}},
		{"embedded has no key of the operator's", nil, []wrong{
			{"livekit.url: is for an external LiveKit", inside(func(l *config.LiveKit) { l.URL = "ws://h" })},
			{"livekit.key: is for an external LiveKit", inside(func(l *config.LiveKit) { l.Key = "k" })},
			{"livekit.secret: is for an external LiveKit", inside(func(l *config.LiveKit) { l.Secret = goodSecret })},
			{"livekit.secret_file: is for an external LiveKit", inside(func(l *config.LiveKit) { l.SecretFile = "f" })},
		}},
		{"ports", []change{port(0), port(65535), udp(0), udp(65535), tcp(0), tcp(65535)}, []wrong{
			{"livekit.embedded.port: is out of range (write a number from 0 to 65535)", port(-1)},
			{"livekit.embedded.port: is out of range (write a number from 0 to 65535)", port(65536)},
			{"livekit.embedded.udp_port: is out of range (write", udp(-1)},
			{"livekit.embedded.udp_port: is out of range (write", udp(65536)},
			{"livekit.embedded.tcp_port: is out of range (write", tcp(-1)},
			{"livekit.embedded.tcp_port: is out of range (write", tcp(65536)},
		}},
		{"node address", []change{node("192.0.2.10"), node("2001:db8::1"), node("127.0.0.1")}, []wrong{
			{"livekit.embedded.node_ip: is not an address that clients can reach (write an IP address such as 192.0.2.10)", node("sfu.example.org")},
			{"livekit.embedded.node_ip: is not an address that clients can reach (write an IP address such as 192.0.2.10)", node("0.0.0.0")},
			{"livekit.embedded.node_ip: is not an address that clients can reach (write an IP address such as 192.0.2.10)", node("::")},
			{"livekit.embedded.node_ip: is not an address that clients can reach (write an IP address such as 192.0.2.10)", node("224.0.0.1")},
			{"livekit.embedded.node_ip: is not an address that clients can reach (write an IP address such as 192.0.2.10)", node("192.0.2.0/24")},
		}},
		{"STUN servers", []change{stun(), stun("stun.example.org:3478", "[2001:db8::1]:65535")}, []wrong{
			{`livekit.embedded.stun_servers: "stun.example.org" is not host:port`, stun("a.example.org:1", "stun.example.org")},
			{`livekit.embedded.stun_servers: "stun:a:3478" is not host:port`, stun("stun:a:3478")},
			{`livekit.embedded.stun_servers: ":3478" is not host:port`, stun(":3478")},
			{`livekit.embedded.stun_servers: "a:0" is not host:port`, stun("a:0")},
			{`livekit.embedded.stun_servers: "a:65536" is not host:port`, stun("a:65536")},
		}},
		{"orphan timeout", []change{orphan(time.Second), orphan(time.Hour)}, []wrong{
			{"livekit.embedded.orphan_timeout: is out of range (write a duration from 1s to 1h)", orphan(time.Second - 1)},
			{"livekit.embedded.orphan_timeout: is out of range (write a duration from 1s to 1h)", orphan(time.Hour + 1)},
		}},
	})
}

func TestValidateSecret(t *testing.T) {
	load := func(secret config.Secret) error {
		c := config.Default()
		c.Server.PublicURL = "https://rtc.example.org"
		c.Focus.Membership = "unverified"
		external(&c)
		c.LiveKit.Key, c.LiveKit.Secret = "APIabcDEFghiJKLmnoPQRstuVWXyz1234567", secret
		return c.Validate()
	}
	for _, secret := range []config.Secret{
		goodSecret, "4f1c0d9be0a35b7d1f20a3c4e5962b8817de6f0c", "hyzN1GNHy9tQcpBwtbGJgxKspNjF4YGZSoyvbpC6WcA", goodSecret + "=",
	} {
		require.NoError(t, load(secret))
	}
	for secret, want := range map[config.Secret]string{
		"secret":                               "is shorter than 32 characters",
		"devkey":                               "is shorter than 32 characters",
		"changeme":                             "is shorter than 32 characters",
		"XqfG0vGZp1mYw7Rk2sTn8uBd4hJc6aL":      "is shorter than 32 characters",
		"devsecretdevsecretdevsecret123456":    "can be guessed",
		"LK_SECRET_AT_LEAST_32_CHARS_0000000":  "can be guessed",
		"REPLACE_WITH_YOUR_LIVEKIT_API_KEY_00": "can be guessed",
		"change-me-change-me-change-me-change": "can be guessed",
		"Change This To Something Else Please": "can be guessed",
		"APIabcDEFghiJKLmnoPQRstuVWXyz1234567": "can be guessed",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "can be guessed",
		"abababababababababababababababababab": "can be guessed",
		"0123456789abcdef0123456789abcdef0123": "can be guessed",
	} {
		got := lines(t, load(secret))
		require.Len(t, got, 1)
		require.True(t, strings.HasPrefix(got[0], "livekit.secret: "+want), got[0])
		require.Contains(t, got[0], "(make one with: openssl rand -hex 32)")
		if len(secret) > 10 {
			require.NotContains(t, got[0], secret.Reveal())
		}
	}
}

func TestValidateFocus(t *testing.T) {
	token := func(d time.Duration) change { return func(c *config.Config) { c.Focus.TokenLifetime = d } }
	empty := func(d time.Duration) change { return func(c *config.Config) { c.Focus.EmptyTimeout = d } }
	departure := func(d time.Duration) change { return func(c *config.Config) { c.Focus.DepartureTimeout = d } }
	longest := func(d time.Duration) change { return func(c *config.Config) { c.Focus.LongestCall = d } }
	most := func(n int) change { return func(c *config.Config) { c.Focus.MaxParticipants = n } }
	check(t, []rule{
		{"token lifetime", []change{token(time.Minute), token(24 * time.Hour)}, []wrong{
			{"focus.token_lifetime: is out of range (write a duration from 1m to 24h)", token(time.Minute - 1)},
			{"focus.token_lifetime: is out of range (write a duration from 1m to 24h)", token(24*time.Hour + 1)},
		}},
		{"empty timeout", []change{empty(10 * time.Second), empty(24 * time.Hour)}, []wrong{
			{"focus.empty_timeout: is out of range (write a duration from 10s to 24h)", empty(10*time.Second - 1)},
			{"focus.empty_timeout: is out of range (write a duration from 10s to 24h)", empty(24*time.Hour + 1)},
		}},
		{"departure timeout", []change{departure(time.Second), departure(24 * time.Hour)}, []wrong{
			{"focus.departure_timeout: is out of range (write a duration from 1s to 24h)", departure(time.Second - 1)},
			{"focus.departure_timeout: is out of range (write a duration from 1s to 24h)", departure(24*time.Hour + 1)},
		}},
		{"participants", []change{most(0), most(10000)}, []wrong{
			{"focus.max_participants: is out of range (write a number from 0 to 10000)", most(-1)},
			{"focus.max_participants: is out of range (write a number from 0 to 10000)", most(10001)},
		}},
		{"longest call", []change{longest(0), longest(time.Minute), longest(720 * time.Hour)}, []wrong{
			{"focus.longest_call: is out of range (write a duration from 1m to 720h)", longest(time.Minute - 1)},
			{"focus.longest_call: is out of range (write a duration from 1m to 720h)", longest(-time.Hour)},
			{"focus.longest_call: is out of range (write a duration from 1m to 720h)", longest(720*time.Hour + 1)},
		}},
	})
}

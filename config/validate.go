package config

import (
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// validate checks what the types do not. It never stops at the first mistake.
func (c *Config) validate(m *Mistakes) {
	c.Server.validate(m)
	c.Log.validate(m)
	c.Database.validate(m)
	c.LiveKit.validate(m)
	c.Focus.validate(m)
	c.Federation.validate(m)
}

func (s Server) validate(m *Mistakes) {
	checkAddress(m, "server.listen", s.Listen, ":8080")
	checkAddress(m, "server.private_listen", s.PrivateListen, "127.0.0.1:9090")
	if s.Listen == s.PrivateListen && !strings.HasSuffix(s.Listen, ":0") {
		m.add("server.private_listen", "is the same as server.listen", "write another port; metrics and webhooks must not be public")
	}
	s.validatePublicURL(m)
	if s.DataDir == "" {
		m.add("server.data_dir", "is missing", "name a folder that Passerelle may write to")
	}
	checkDuration(m, "server.stop_timeout", s.StopTimeout, time.Second, 10*time.Minute)
}

func (s Server) validatePublicURL(m *Mistakes) {
	const key, example = "server.public_url", "write the address that clients reach, such as https://rtc.example.gouv.fr"
	if s.PublicURL == "" {
		m.add(key, "is missing", example)
		return
	}
	u, err := url.Parse(s.PublicURL)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		m.add(key, "is not an address", example)
	case u.Scheme != "http" && u.Scheme != "https":
		m.add(key, "has the scheme "+strconv.Quote(u.Scheme), example)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		m.add(key, "is not encrypted, and browsers allow no calls then", "write https://; http:// is for loopback addresses alone")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(s.PublicURL, "#") || u.ForceQuery:
		m.add(key, "holds more than scheme, host and path", example)
	case strings.HasSuffix(u.Path, "/"):
		m.add(key, "ends in a slash, and clients compare addresses as texts", "write "+strings.TrimRight(s.PublicURL, "/"))
	}
}

func (l Log) validate(m *Mistakes) {
	if !slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, l.Level) {
		m.add("log.level", "is not a level", "write trace, debug, info, warn or error")
	} else if _, err := zerolog.ParseLevel(l.Level); err != nil {
		m.add("log.level", err.Error(), "")
	}
	checkWord(m, "log.format", l.Format, "auto", "json", "console")
}

func (d Database) validate(m *Mistakes) {
	checkWord(m, "database.type", d.Type, "sqlite", "postgres")
	switch d.Type {
	case "sqlite":
		if d.Path == "" {
			m.add("database.path", "is missing", "name the file, such as /var/lib/passerelle/passerelle.db")
		}
		if d.URI != "" || d.URIFile != "" {
			m.add("database.uri", "is for PostgreSQL", "remove it, or write database.type: postgres")
		}
	case "postgres":
		if d.URI == "" && d.URIFile == "" {
			m.add("database.uri", "is missing", "write postgres://user:password@host/database, or name a file that holds it in database.uri_file")
		}
	}
	checkRange(m, "database.max_open_conns", d.MaxOpenConns, 1, 1000)
}

func (l LiveKit) validate(m *Mistakes) {
	checkWord(m, "livekit.mode", l.Mode, "embedded", "external")
	switch l.Mode {
	case "embedded":
		for key, set := range map[string]bool{"url": l.URL != "", "key": l.Key != "", "secret": l.Secret != "", "secret_file": l.SecretFile != ""} {
			if set {
				m.add("livekit."+key, "is for an external LiveKit", "remove it, or write livekit.mode: external")
			}
		}
		l.Embedded.validate(m)
	case "external":
		l.validateExternal(m)
	}
}

func (l LiveKit) validateExternal(m *Mistakes) {
	const example = "write LiveKit's address, such as ws://127.0.0.1:7880"
	u, err := url.Parse(l.URL)
	switch {
	case l.URL == "":
		m.add("livekit.url", "is missing", example)
	case err != nil || u.Host == "" || !slices.Contains([]string{"ws", "wss", "http", "https"}, u.Scheme):
		m.add("livekit.url", "is not an address", example)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		m.add("livekit.url", "holds more than scheme, host and path", example)
	}
	if l.Key == "" {
		m.add("livekit.key", "is missing", "write the ID of LiveKit's API key")
	}
	if l.Secret == "" && l.SecretFile == "" {
		m.add("livekit.secret", "is missing", "name a file that holds LiveKit's API secret in livekit.secret_file")
	}
	if l.Secret != "" {
		checkSecret(m, "livekit.secret", l.Key, l.Secret)
	}
}

func (e Embedded) validate(m *Mistakes) {
	ports := map[int]string{}
	for _, p := range []struct {
		key  string
		port int
	}{{"port", e.Port}, {"tcp_port", e.TCPPort}, {"udp_port", e.UDPPort}} {
		key := "livekit.embedded." + p.key
		if p.port < 0 || p.port > 65535 {
			m.add(key, "is not a port", "write a number from 1 to 65535")
			continue
		}
		// UDP and TCP have ports of their own; two of TCP must differ.
		if other, taken := ports[p.port]; taken && p.port != 0 && p.key == "tcp_port" {
			m.add(key, "is the port of "+other+" too", "write another one")
		}
		ports[p.port] = key
	}
	if e.NodeIP != "" {
		if ip, err := netip.ParseAddr(e.NodeIP); err != nil || ip.IsUnspecified() || ip.IsMulticast() {
			m.add("livekit.embedded.node_ip", "is not an address that clients can reach", "write an IP address such as 192.0.2.10")
		}
	}
	for _, server := range e.STUNServers {
		if !isHostPort(server) {
			m.add("livekit.embedded.stun_servers", strconv.Quote(server)+" is not host:port", "write stun.example.gouv.fr:3478")
		}
	}
	checkDuration(m, "livekit.embedded.orphan_timeout", e.OrphanTimeout, time.Second, time.Hour)
}

func (f Focus) validate(m *Mistakes) {
	checkDuration(m, "focus.token_lifetime", f.TokenLifetime, time.Minute, 24*time.Hour)
	checkDuration(m, "focus.empty_timeout", f.EmptyTimeout, 10*time.Second, 24*time.Hour)
	checkDuration(m, "focus.departure_timeout", f.DepartureTimeout, time.Second, 24*time.Hour)
	checkRange(m, "focus.max_participants", f.MaxParticipants, 0, 10000)
}

// serverGlob is a server name in lower case in which * and ? may stand for
// letters: the characters of host names, IP literals and ports.
var serverGlob = regexp.MustCompile(`^[a-z0-9.*?\-\[\]:]+$`)

func (f Federation) validate(m *Mistakes) {
	seen := map[string]bool{}
	for i, rule := range f.Rules {
		key := "federation.rules[" + strconv.Itoa(i) + "]"
		switch {
		case rule.Server == "":
			m.add(key+".server", "is missing", "write a server name such as agent.interieur.tchap.gouv.fr, or *.tchap.gouv.fr")
		case !serverGlob.MatchString(strings.ToLower(rule.Server)) || strings.Contains(rule.Server, "://"):
			m.add(key+".server", strconv.Quote(rule.Server)+" is not a server name", "write the name alone, without scheme and path")
		case rule.Server != strings.ToLower(rule.Server):
			m.add(key+".server", "has capital letters", "write "+strings.ToLower(rule.Server))
		case seen[rule.Server]:
			m.add(key+".server", rule.Server+" has a rule already", "keep one of them; the first would decide")
		}
		seen[rule.Server] = true
		checkWord(m, key+".access", rule.Access, "deny", "join", "create")
		if rule.Publish && rule.Access == "deny" {
			m.add(key+".publish", "lends publishing to those who are denied", "remove publish, or write access: join")
		}
	}
	for _, network := range f.AllowNetworks {
		if _, err := netip.ParsePrefix(network); err != nil {
			m.add("federation.allow_networks", strconv.Quote(network)+" is not an address range", "write a CIDR such as 10.1.0.0/16")
		}
	}
	for _, file := range f.CAFiles {
		data, err := readBounded(file)
		if err != nil {
			m.add("federation.ca_files", plainFileError(err), "name PEM files")
		} else if !x509.NewCertPool().AppendCertsFromPEM(data) {
			m.add("federation.ca_files", filepath.Clean(file)+" holds no certificate", "name PEM files")
		}
	}
	checkDuration(m, "federation.timeout", f.Timeout, 100*time.Millisecond, time.Minute)
}

// minSecret is LiveKit's own least length.
const minSecret = 32

// wellKnown are secrets that stand in documentation and sample files.
var wellKnown = []string{
	"secret", "devkey", "changeme", "change-me", "password", "replace", "example", "yourlivekit", "your-", "livekitsecret",
	"apisecret", "mysecret", "supersecret", "placeholder", "insecure", "0123456789", "abcdefgh",
}

// checkSecret refuses what anybody could guess. Its message says nothing of
// the secret.
func checkSecret(m *Mistakes, key, id string, secret Secret) {
	const instead = "make one with: openssl rand -hex 32"
	text := strings.ToLower(secret.Reveal())
	distinct := map[rune]bool{}
	for _, r := range text {
		distinct[r] = true
	}
	switch {
	case len(text) < minSecret:
		m.add(key, "is shorter than "+strconv.Itoa(minSecret)+" characters", instead)
	case len(distinct) < 8 || id != "" && text == strings.ToLower(id),
		slices.ContainsFunc(wellKnown, func(known string) bool { return strings.Contains(text, known) }):
		m.add(key, "can be guessed or stands in a public sample", instead)
	}
}

func checkAddress(m *Mistakes, key, address, example string) {
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.Atoi(port)
	if err != nil || portErr != nil || number < 0 || number > 65535 || host != "" && net.ParseIP(host) == nil {
		m.add(key, "is not an address to listen on", "write an IP address and a port, such as "+example)
	}
}

func checkWord(m *Mistakes, key, word string, allowed ...string) {
	if !slices.Contains(allowed, word) {
		m.add(key, strconv.Quote(word)+" is not known here", "write "+strings.Join(allowed[:len(allowed)-1], ", ")+" or "+allowed[len(allowed)-1])
	}
}

func checkRange(m *Mistakes, key string, n, low, high int) {
	if n < low || n > high {
		m.add(key, "is out of range", "write a number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high))
	}
}

func checkDuration(m *Mistakes, key string, d, low, high time.Duration) {
	if d < low || d > high {
		m.add(key, "is out of range", "write a duration from "+low.String()+" to "+high.String())
	}
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	number, portErr := strconv.Atoi(port)
	return err == nil && host != "" && portErr == nil && number > 0 && number < 65536
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

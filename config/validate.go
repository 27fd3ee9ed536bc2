package config

import (
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// validate checks what the types do not. It never stops at the first mistake.
func (c *Config) validate(m *Mistakes) {
	c.validateListeners(m)
	c.Server.validate(m)
	c.Log.validate(m)
	c.Database.validate(m)
	c.LiveKit.validate(m)
	c.Focus.validate(m)
	c.validateMembership(m)
	c.Homeserver.validate(m)
	c.Announce.validate(m)
	c.Federation.validate(m)
	c.validateSigned(m)
}

// validateListeners refuses two listeners on one port. Those on different
// addresses may share it; an address that is not given is all of them. Port 0
// is any free one. UDP has ports of its own.
func (c *Config) validateListeners(m *Mistakes) {
	type listener struct{ key, host, port string }
	var all []listener
	add := func(key, address string) {
		host, port, err := net.SplitHostPort(address)
		if err == nil && port != "0" {
			if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
				host = ""
			}
			all = append(all, listener{key, host, port})
		}
	}
	add("server.listen", c.Server.Listen)
	add("server.private_listen", c.Server.PrivateListen)
	add("homeserver.listen", c.Homeserver.Listen)
	if e := c.LiveKit.Embedded; c.LiveKit.Mode == "embedded" {
		add("livekit.embedded.port", "127.0.0.1:"+strconv.Itoa(e.Port))
		add("livekit.embedded.tcp_port", ":"+strconv.Itoa(e.TCPPort))
	}
	for i, l := range all {
		for _, other := range all[:i] {
			if l.port == other.port && (l.host == "" || other.host == "" || l.host == other.host) {
				m.add(l.key, "has the port of "+other.key, "write another port")
			}
		}
	}
}

func (s Server) validate(m *Mistakes) {
	checkAddress(m, "server.listen", s.Listen, ":8080")
	checkAddress(m, "server.private_listen", s.PrivateListen, "127.0.0.1:9090")
	s.validatePublicURL(m)
	if s.DataDir == "" {
		m.add("server.data_dir", missing, "name a folder that Passerelle may write to")
	}
	checkNetworks(m, "server.trusted_proxies", s.TrustedProxies)
	checkDuration(m, "server.stop_timeout", s.StopTimeout, time.Second, 10*time.Minute)
}

func (s Server) validatePublicURL(m *Mistakes) {
	const key, example = "server.public_url", "write the address that clients reach, such as https://rtc.example.gouv.fr"
	if s.PublicURL == "" {
		m.add(key, missing, example)
		return
	}
	u, err := url.Parse(s.PublicURL)
	switch {
	case err != nil || u.Hostname() == "":
		m.add(key, "is not an address", example)
	case u.Scheme != "http" && u.Scheme != "https":
		m.add(key, "has the scheme "+strconv.Quote(u.Scheme), example)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		m.add(key, "is not encrypted, and browsers allow no calls then", "write https://; http:// is for loopback addresses alone")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(s.PublicURL, "#") || u.ForceQuery:
		m.add(key, "holds more than scheme, host and path", example)
	case strings.HasSuffix(u.Path, "/"):
		m.add(key, "ends in a slash, and clients compare addresses as texts", "write "+strings.TrimRight(s.PublicURL, "/"))
	case u.RawPath != "" || u.Path != "" && path.Clean(u.Path) != u.Path:
		m.add(key, "has a path that could be written in several ways", "write it without //, /../ and %2F")
	}
}

func (l Log) validate(m *Mistakes) {
	checkWord(m, "log.level", l.Level, "trace", "debug", "info", "warn", "error")
	checkWord(m, "log.format", l.Format, "auto", "json", "console")
}

func (d Database) validate(m *Mistakes) {
	checkWord(m, "database.type", d.Type, "sqlite", "postgres")
	switch d.Type {
	case "sqlite":
		if d.Path == "" {
			m.add("database.path", missing, "name the file, such as /var/lib/passerelle/passerelle.db")
		}
		if d.URI != "" || d.URIFile != "" {
			m.add("database.uri", "is for PostgreSQL", "remove it, or write database.type: postgres")
		}
	case "postgres":
		const example = "write postgres://user:password@host/database, or name a file that holds it in database.uri_file"
		if d.URI == "" && d.URIFile == "" {
			m.add("database.uri", missing, example)
		} else if d.URI != "" && !isPostgresURI(d.URI.Reveal()) {
			m.add("database.uri", "is not a connection string", example)
		}
	}
	checkRange(m, "database.max_open_conns", d.MaxOpenConns, 1, 1000)
}

func (l LiveKit) validate(m *Mistakes) {
	checkWord(m, "livekit.mode", l.Mode, "embedded", "external")
	checkWord(m, "livekit.signalling", l.Signalling, "gated", "direct")
	l.validatePublicURL(m)
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

// validatePublicURL: clients are given the address as it stands there.
func (l LiveKit) validatePublicURL(m *Mistakes) {
	const key, example = "livekit.public_url", "write the address that clients reach, such as wss://sfu.example.gouv.fr"
	u, err := url.Parse(l.PublicURL)
	switch {
	case l.Signalling == "gated" && l.PublicURL != "":
		m.add(key, "is for clients that reach the media server directly", "remove it, or write livekit.signalling: direct")
	case l.Signalling == "direct" && l.PublicURL == "":
		m.add(key, missing, example)
	case l.PublicURL != "" && (err != nil || u.Hostname() == "" || u.Scheme != "ws" && u.Scheme != "wss"):
		m.add(key, "is not an address", example)
	case l.PublicURL != "" && (u.User != nil || u.RawQuery != "" || u.Fragment != ""):
		m.add(key, "holds more than scheme, host and path", example)
	}
}

func (l LiveKit) validateExternal(m *Mistakes) {
	const example = "write LiveKit's address, such as ws://127.0.0.1:7880"
	u, err := url.Parse(l.URL)
	switch {
	case l.URL == "":
		m.add("livekit.url", missing, example)
	case err != nil || u.Hostname() == "" || !slices.Contains([]string{"ws", "wss", "http", "https"}, u.Scheme):
		m.add("livekit.url", "is not an address", example)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		m.add("livekit.url", "holds more than scheme, host and path", example)
	}
	if l.Key == "" {
		m.add("livekit.key", missing, "write the ID of LiveKit's API key")
	}
	if l.Secret == "" && l.SecretFile == "" {
		m.add("livekit.secret", missing, "name a file that holds LiveKit's API secret in livekit.secret_file")
	}
	if l.Secret != "" {
		checkSecret(m, "livekit.secret", l.Key, l.Secret)
	}
}

func (e Embedded) validate(m *Mistakes) {
	checkRange(m, "livekit.embedded.port", e.Port, 0, 65535)
	checkRange(m, "livekit.embedded.udp_port", e.UDPPort, 0, 65535)
	checkRange(m, "livekit.embedded.tcp_port", e.TCPPort, 0, 65535)
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
	checkRange(m, "focus.limits.address", f.Limits.Address, 0, 1_000_000)
	checkRange(m, "focus.limits.server", f.Limits.Server, 0, 1_000_000)
	checkRange(m, "focus.limits.user", f.Limits.User, 0, 1_000_000)
	checkBounds(m, "focus", f.MaxParticipants, f.LongestCall)
}

// validateMembership: who is in a room only our own homeserver can say. To do
// without is the operator's choice and never a slip.
func (c *Config) validateMembership(m *Mistakes) {
	checkWord(m, "focus.membership", c.Focus.Membership, "required", "unverified")
	h := c.Homeserver
	const otherwise = "; or write focus.membership: unverified, and whoever knows a room's ID gets into its calls"
	switch {
	case c.Focus.Membership != "required":
	case h == (Homeserver{}):
		m.add("homeserver", missing, "it says who is in a room: write its server_name, url and as_token, see `passerelle registration focus`"+otherwise)
	case h.ASToken == "" && h.ASTokenFile == "":
		m.add("homeserver.as_token", missing, "name a file that holds it in homeserver.as_token_file; `passerelle registration focus` makes it"+otherwise)
	}
}

// validate: all or nothing, since a half is a token that goes nowhere.
func (h Homeserver) validate(m *Mistakes) {
	if h == (Homeserver{}) {
		return
	}
	h.validateServerName(m)
	const example = "write the address of its client API, such as http://127.0.0.1:8008"
	u, err := url.Parse(h.URL)
	switch {
	case h.URL == "":
		m.add("homeserver.url", missing, example)
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		m.add("homeserver.url", "is not an address", example)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		m.add("homeserver.url", "holds more than scheme, host and path", example)
	}
	h.validateTokens(m)
	if h.Listen != "" {
		checkAddress(m, "homeserver.listen", h.Listen, "127.0.0.1:8090")
		if h.HSToken == "" && h.HSTokenFile == "" {
			m.add("homeserver.hs_token", missing, "name a file that holds it in homeserver.hs_token_file; `passerelle registration focus` makes it")
		}
	}
}

func (h Homeserver) validateServerName(m *Mistakes) {
	const key, example = "homeserver.server_name", "write the part of your users' IDs after the first colon"
	switch lower := strings.ToLower(h.ServerName); {
	case h.ServerName == "":
		m.add(key, missing, example)
	case len(lower) > maxServerName, !serverGlob.MatchString(lower), strings.ContainsAny(lower, "*?"):
		m.add(key, strconv.Quote(h.ServerName)+" is not a server name", example+", such as example.gouv.fr, without scheme and path")
	case h.ServerName != lower:
		m.add(key, "has capital letters", "write "+lower)
	}
}

func (f Federation) validate(m *Mistakes) {
	f.validateRules(m)
	checkNetworks(m, "federation.allow_networks", f.AllowNetworks)
	for _, file := range f.CAFiles {
		data, err := readBounded(file)
		if err != nil {
			m.add("federation.ca_files", plainFileError(err), "name PEM files that Passerelle may read")
		} else if !x509.NewCertPool().AppendCertsFromPEM(data) {
			m.add("federation.ca_files", filepath.Clean(file)+" holds no certificate", "name PEM files")
		}
	}
	checkDuration(m, "federation.timeout", f.Timeout, 100*time.Millisecond, time.Minute)
}

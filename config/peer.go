package config

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxTransports and maxSigningKeys bound what one rule lists; maxTransport
	// is the longest address, in bytes, that clients can ask for.
	maxTransports, maxSigningKeys = 8, 8
	maxTransport                  = 255
)

// signingKeyName is the ID of a key as Matrix writes it.
var signingKeyName = regexp.MustCompile(`^ed25519:[A-Za-z0-9_-]{1,100}$`)

// validatePeer checks what a rule says of one server alone.
func (r FederationRule) validatePeer(m *Mistakes, key string) {
	for _, list := range []struct {
		name   string
		length int
		most   int
	}{
		{".transports", len(r.Transports), maxTransports}, {".signing_keys", len(r.SigningKeys), maxSigningKeys},
	} {
		switch {
		case list.length > list.most:
			m.add(key+list.name, "lists more than "+strconv.Itoa(list.most), "remove those that are not in use")
		case list.length > 0 && strings.ContainsAny(r.Server, "*?"):
			m.add(key+list.name, "is for one server, and "+r.Server+" names many", "write a rule for that server above this one")
		case list.length > 0 && r.Access == "deny":
			m.add(key+list.name, "is for servers that may join", "remove it, or write access: join")
		}
	}
	for i, address := range r.Transports {
		r.validateTransport(m, key+".transports", i, address)
	}
	for i, text := range r.SigningKeys {
		const instead = "write ed25519:NAME KEY as the server's /_matrix/key/v2/server has them"
		name, encoded, _ := strings.Cut(text, " ")
		decoded, err := base64.RawStdEncoding.DecodeString(encoded)
		switch {
		case !signingKeyName.MatchString(name) || err != nil || len(decoded) != 32:
			m.add(key+".signing_keys", strconv.Quote(text)+" is not a public key", instead)
		case slices.ContainsFunc(r.SigningKeys[:i], func(other string) bool { return strings.HasPrefix(other, name+" ") }):
			m.add(key+".signing_keys", "has two keys with the name "+name, instead)
		}
	}
}

func (r FederationRule) validateTransport(m *Mistakes, key string, i int, address string) {
	u, err := url.Parse(address)
	switch {
	case len(address) > maxTransport:
		m.add(key, "has an address that is longer than a client can ask for", "write "+strconv.Itoa(maxTransport)+" characters at most")
	case err != nil || u.Hostname() == "" || u.Scheme != "ws" && u.Scheme != "wss":
		m.add(key, strconv.Quote(address)+" is not the address of a media server", "write the url that its homeserver announces, such as wss://rtc.example.gouv.fr")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(address, "#"):
		m.add(key, strconv.Quote(address)+" holds more than scheme, host and path", "write the url that its homeserver announces")
	case slices.Contains(r.Transports[:i], address):
		m.add(key, address+" stands twice", "keep one of them")
	}
}

// validateSigned: signatures are for a server of a certain name.
func (c *Config) validateSigned(m *Mistakes) {
	if c.Federation.SignedRequests && c.Homeserver.ServerName == "" {
		m.add("homeserver.server_name", missing, "write the name that other servers sign their requests to, or federation.signed_requests: false")
	}
}

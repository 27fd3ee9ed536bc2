package federation

import (
	"fmt"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// maxOwners bounds how many servers may be behind the address of one media
// server.
const maxOwners = 8

// peerRule is what a rule says of the one server that it names.
type peerRule struct {
	// name is the server's, in lower case; empty for a glob.
	name        string
	transports  []matrixrtc.Transport
	signingKeys map[id.KeyID]id.SigningKey
}

// parsePeer reads it. Errors begin with the key within the rule.
func parsePeer(r config.FederationRule) (peerRule, error) {
	var p peerRule
	if strings.ContainsAny(r.Server, "*?") {
		if len(r.Transports)+len(r.SigningKeys) > 0 {
			return p, fmt.Errorf(".server: %s names many servers, and transports and signing_keys are those of one", r.Server)
		}
		return p, nil
	}
	p.name = strings.ToLower(r.Server)
	for _, address := range r.Transports {
		transport, err := matrixrtc.ParseTransport(address)
		if err != nil {
			return p, fmt.Errorf(".transports: %q: %w", address, err)
		}
		p.transports = append(p.transports, transport)
	}
	for _, text := range r.SigningKeys {
		name, key, _ := strings.Cut(text, " ")
		if !validKey(id.KeyID(name), id.SigningKey(key)) {
			return p, fmt.Errorf(".signing_keys: %q is not a public key", text)
		}
		if p.signingKeys == nil {
			p.signingKeys = map[id.KeyID]id.SigningKey{}
		}
		p.signingKeys[id.KeyID(name)] = id.SigningKey(key)
	}
	return p, nil
}

// signingKeys are the keys that the rules have of a server; none where it is to
// be asked.
func (p *Policy) signingKeys(serverName string) map[id.KeyID]id.SigningKey {
	name := strings.ToLower(serverName)
	for _, r := range *p.rules.Load() {
		if r.peer.name == name && len(r.peer.signingKeys) > 0 {
			return r.peer.signingKeys
		}
	}
	return nil
}

// Owners lists the servers that may have the media server at an address: those
// of which the rules say so, in their order; where they say it of none, those in
// whose domain it is, the narrowest first. All of them may join. There are none
// for an address that nobody who is known can have. It is pure: nothing is
// looked up.
func (p *Policy) Owners(address string) []string {
	transport, err := matrixrtc.ParseTransport(address)
	if err != nil {
		return nil
	}
	var owners []string
	for _, r := range *p.rules.Load() {
		if slices.Contains(r.peer.transports, transport) && p.Access(r.peer.name).Join && len(owners) < maxOwners {
			owners = append(owners, r.peer.name)
		}
	}
	if len(owners) > 0 {
		return owners
	}
	for _, domain := range domains(transport.Host()) {
		if p.Access(domain).Join {
			owners = append(owners, domain)
		}
	}
	return owners
}

// domains are a host name and those that it is part of, without the top-level
// one; none for an address or a name without a dot.
func domains(host string) []string {
	var found []string
	for strings.Contains(host, ".") && !strings.HasSuffix(host, ".") && len(found) < maxOwners {
		found = append(found, host)
		_, host, _ = strings.Cut(host, ".")
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; strings.Contains(last, ":") || strings.Trim(last, "0123456789") == "" {
		return nil // an address: no top-level domain is a number
	}
	return found
}

package federation

import (
	"errors"
	"fmt"
	"strings"

	"go.mau.fi/util/glob"
	"maunium.net/go/mautrix/federation"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// maxServerName is the length of the longest server name (Matrix
// specification, appendices, "Server name").
const maxServerName = 255

// rule is one rule of the policy, ready to be compared with.
type rule struct {
	server glob.Glob
	access matrixrtc.Access
	peer   peerRule
}

func parseRules(rules []config.FederationRule) ([]rule, error) {
	parsed := make([]rule, 0, len(rules))
	for i, r := range rules {
		server, err := parseGlob(r.Server)
		if err != nil {
			return nil, fmt.Errorf("federation.rules[%d].server: %w", i, err)
		}
		access, err := parseAccess(r)
		if err != nil {
			return nil, fmt.Errorf("federation.rules[%d].%w", i, err)
		}
		peer, err := parsePeer(r)
		if err != nil {
			return nil, fmt.Errorf("federation.rules[%d]%w", i, err)
		}
		parsed = append(parsed, rule{server, access, peer})
	}
	return parsed, nil
}

// parseGlob reads a server name in which * stands for any characters and ? for
// one (Matrix specification, appendices, "Glob-style matching"). Characters
// that no server name has are a mistake, since the rule would never match.
func parseGlob(pattern string) (glob.Glob, error) {
	switch {
	case pattern == "":
		return nil, errors.New("names no server")
	case len(pattern) > maxServerName:
		return nil, fmt.Errorf("is longer than a server name, which has at most %d characters", maxServerName)
	case strings.ContainsFunc(pattern, func(r rune) bool { return !serverNameRune(r) && r != '*' && r != '?' }):
		return nil, fmt.Errorf("%q is not a server name; write the name alone, without scheme and path", pattern)
	}
	return glob.Compile(strings.ToLower(pattern)), nil
}

func serverNameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-.:[]", r)
}

// parseAccess reads what a rule gives. Its errors begin with the key.
func parseAccess(r config.FederationRule) (matrixrtc.Access, error) {
	sources := matrixrtc.AllSources
	if r.Sources != nil {
		var err error
		if sources, err = matrixrtc.ParseSources(r.Sources); err != nil {
			return matrixrtc.Access{}, fmt.Errorf("sources: %w", err)
		}
	}
	switch r.Access {
	case "deny":
		return matrixrtc.Access{}, nil
	case "join":
		if !r.Publish {
			sources = 0
		}
		return matrixrtc.Access{Join: true, Publish: sources}, nil
	case "create":
		return matrixrtc.Access{Join: true, Publish: sources, Create: true, Calls: matrixrtc.Bounds{
			MaxParticipants: r.MaxParticipants, Longest: r.LongestCall,
		}}, nil
	}
	return matrixrtc.Access{}, fmt.Errorf("access: %q is none of deny, join, create", r.Access)
}

// validServerName tells whether a name follows the grammar of the Matrix
// specification (appendices, "Server name"): a host name or an IP literal, and
// perhaps a port of one to five digits. Port 0 is refused: it cannot be
// reached, and reads as if there were none.
func validServerName(name string) bool {
	host, port, ok := federation.ParseServerName(name)
	if !ok {
		return false
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	digits, hasPort := strings.CutPrefix(name[len(host):], ":")
	return !hasPort && digits == "" || hasPort && port != 0 && len(digits) <= 5
}

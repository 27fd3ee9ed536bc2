package federation

import (
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"

	"maunium.net/go/mautrix/federation"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// Policy says what the users of a server may do. It is a list of rules of
// which the first that matches decides; a server that none matches may do
// nothing. Looking up is pure: no I/O, no lock.
type Policy struct {
	rules atomic.Pointer[[]rule]
}

type rule struct {
	matches *regexp.Regexp
	access  matrixrtc.Access
}

// NewPolicy returns the policy of the rules.
func NewPolicy(rules []config.FederationRule) (*Policy, error) {
	p := &Policy{}
	return p, p.Replace(rules)
}

// Replace puts other rules in force, all of them or, when one is not well
// formed, none.
func (p *Policy) Replace(rules []config.FederationRule) error {
	compiled := make([]rule, 0, len(rules))
	for i, r := range rules {
		access, err := accessOf(r)
		if err != nil {
			return fmt.Errorf("federation.rules[%d]: %w", i, err)
		}
		matches, err := compileGlob(r.Server)
		if err != nil {
			return fmt.Errorf("federation.rules[%d].server: %w", i, err)
		}
		compiled = append(compiled, rule{matches, access})
	}
	p.rules.Store(&compiled)
	return nil
}

// compileGlob reads a server name in which * stands for any letters and ? for
// one (Matrix specification, appendices, "Glob-style matching").
func compileGlob(pattern string) (*regexp.Regexp, error) {
	quoted := regexp.QuoteMeta(strings.ToLower(pattern))
	quoted = strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(quoted)
	return regexp.Compile(`^(?:` + quoted + `)$`)
}

func accessOf(r config.FederationRule) (matrixrtc.Access, error) {
	switch r.Access {
	case "deny":
		return matrixrtc.Access{}, nil
	case "join":
		return matrixrtc.Access{Join: true, Publish: r.Publish}, nil
	case "create":
		return matrixrtc.Access{Join: true, Publish: true, Create: true}, nil
	}
	return matrixrtc.Access{}, fmt.Errorf("access %q: must be deny, join or create", r.Access)
}

// Access is what the users of a server may do. Names are compared in lower
// case, port included; what is not a server name by Matrix' grammar
// (specification, appendices, "Server name") may do nothing.
func (p *Policy) Access(serverName string) matrixrtc.Access {
	if _, _, ok := federation.ParseServerName(serverName); !ok {
		return matrixrtc.Access{}
	}
	name := strings.ToLower(serverName)
	for _, r := range *p.rules.Load() {
		if r.matches.MatchString(name) {
			return r.access
		}
	}
	return matrixrtc.Access{}
}

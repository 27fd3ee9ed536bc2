package federation

import (
	"strings"
	"sync/atomic"

	"passerelle/config"
	"passerelle/focus/matrixrtc"
)

// Policy says what the users of a server may do. It is a list of rules of
// which the first that matches decides; a server that none matches may do
// nothing. Looking up is pure: no I/O, no lock.
type Policy struct {
	rules atomic.Pointer[[]rule]
}

// NewPolicy returns the policy of the rules.
func NewPolicy(rules []config.FederationRule) (*Policy, error) {
	p := &Policy{}
	if err := p.Replace(rules); err != nil {
		return nil, err
	}
	return p, nil
}

// Replace puts other rules in force, all of them or, when one is not well
// formed, none.
func (p *Policy) Replace(rules []config.FederationRule) error {
	parsed, err := parseRules(rules)
	if err != nil {
		return err
	}
	p.rules.Store(&parsed)
	return nil
}

// Access is what the users of a server may do. Names are compared in lower
// case, port included; what is no server name may do nothing.
func (p *Policy) Access(serverName string) matrixrtc.Access {
	if !validServerName(serverName) {
		return matrixrtc.Access{}
	}
	name := strings.ToLower(serverName)
	for _, r := range *p.rules.Load() {
		if r.server.Match(name) {
			return r.access
		}
	}
	return matrixrtc.Access{}
}

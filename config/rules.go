package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// serverGlob is a server name in lower case in which * and ? may stand for
// characters: a host name or an IP literal, and perhaps a port.
var serverGlob = regexp.MustCompile(`^([a-z0-9.*?-]+|\[[0-9a-f:.*?]+\])(:[0-9*?]+)?$`)

// maxServerName is the longest server name that Matrix knows.
const maxServerName = 255

// maxRules bounds the list: each rule is compared with those above it, and
// each server's name with all.
const maxRules = 1000

func (f Federation) validateRules(m *Mistakes) {
	if len(f.Rules) > maxRules {
		m.add("federation.rules", "has more than "+strconv.Itoa(maxRules)+" rules", "say more with one rule, by * in its server")
		return
	}
	for i, rule := range f.Rules {
		key := rulePath("federation.rules", i)
		rule.validateServer(m, key+".server")
		if by := shadowedBy(f.Rules, i); by >= 0 {
			m.add(key+".server", rule.Server+" never decides: "+f.Rules[by].Server+" stands above it and matches all of it",
				"put it above "+rulePath("federation.rules", by)+", or remove it")
		}
		checkWord(m, key+".access", rule.Access, "deny", "join", "create")
		if rule.Publish && rule.Access == "deny" {
			m.add(key+".publish", "lends publishing to those who are denied", "remove publish, or write access: join")
		}
		rule.validateSources(m, key+".sources")
		rule.validateBounds(m, key)
		rule.validatePeer(m, key)
	}
}

// validateSources: what reads as a limit must be one.
func (r FederationRule) validateSources(m *Mistakes, key string) {
	switch {
	case r.Sources == nil:
		return
	case len(r.Sources) == 0:
		m.add(key, "names nothing", "remove it where all may be sent; write access: join where nothing may")
	case r.Access == "deny" || r.Access == "join" && !r.Publish:
		m.add(key, "limits the publishing of those who publish nothing", "remove it, or write publish: true beside access: join")
	}
	for i, source := range r.Sources {
		checkWord(m, key, source, "microphone", "camera", "screen_share")
		if slices.Contains(r.Sources[:i], source) {
			m.add(key, "names "+source+" twice", "name it once")
		}
	}
}

func (r FederationRule) validateBounds(m *Mistakes, key string) {
	checkBounds(m, key, r.MaxParticipants, r.LongestCall)
	for name, set := range map[string]bool{".max_participants": r.MaxParticipants != 0, ".longest_call": r.LongestCall != 0} {
		if set && (r.Access == "deny" || r.Access == "join") {
			m.add(key+name, "bounds the calls of those who start none", "write it at the rule of those who start them, or as focus"+name)
		}
	}
}

func (r FederationRule) validateServer(m *Mistakes, key string) {
	switch lower := strings.ToLower(r.Server); {
	case r.Server == "":
		m.add(key, missing, "write a server name such as agent.interieur.tchap.gouv.fr, or *.tchap.gouv.fr")
	case len(r.Server) > maxServerName:
		m.add(key, "is longer than a server name can be", "write "+strconv.Itoa(maxServerName)+" characters at most")
	case !serverGlob.MatchString(lower):
		m.add(key, strconv.Quote(r.Server)+" is not a server name", "write the name alone, without scheme and path")
	case r.Server != lower:
		m.add(key, "has capital letters", "write "+lower)
	}
}

// shadowedBy is the first rule above rule i that matches every server that
// rule i matches, so that rule i never decides; -1 when there is none. Such a
// rule is refused because it is mostly a deny that somebody relies on.
func shadowedBy(rules []FederationRule, i int) int {
	for j := range i {
		if a, b := rules[j].Server, rules[i].Server; len(a) <= maxServerName && len(b) <= maxServerName && b != "" && covers(a, b) {
			return j
		}
	}
	return -1
}

// covers tells whether the glob general matches whatever the glob special
// matches. To it the * and ? of special are characters like others, which only
// a * matches, or for a ? another one.
func covers(general, special string) bool {
	g, s := 0, 0
	star, resume := -1, 0
	for s < len(special) {
		switch {
		case g < len(general) && general[g] == '*':
			star, resume = g, s
			g++
		case g < len(general) && (general[g] == special[s] || general[g] == '?' && special[s] != '*'):
			g++
			s++
		case star >= 0:
			// The last * takes one character more.
			resume++
			g, s = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(general[g:], "*") == ""
}

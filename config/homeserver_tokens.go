package config

import "strings"

// CheckTokens finds what is wrong with both tokens, as [Load] does. Its error is
// [Mistakes].
func (h Homeserver) CheckTokens() error {
	var mistakes Mistakes
	h.validateTokens(&mistakes)
	return mistakes.err()
}

func (h Homeserver) validateTokens(m *Mistakes) {
	const instead = "make another one with: openssl rand -hex 32"
	for _, t := range []struct {
		key   string
		token Secret
	}{{"homeserver.as_token", h.ASToken}, {"homeserver.hs_token", h.HSToken}} {
		if t.token == "" {
			continue
		}
		checkSecret(m, t.key, "", t.token)
		// Both travel in the header Authorization.
		if strings.ContainsFunc(t.token.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
			m.add(t.key, "holds characters that do not travel in a header", instead)
		}
	}
	if h.ASToken != "" && h.ASToken == h.HSToken {
		m.add("homeserver.hs_token", "is the same as homeserver.as_token", instead)
	}
}

package federation_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/config"
	"passerelle/federation"
)

// TestOwners: of whom a media server may be, by its address alone.
func TestOwners(t *testing.T) {
	policy, err := federation.NewPolicy([]config.FederationRule{
		{Server: "own.example", Access: "create"},
		{Server: "first.example:8448", Access: "join", Transports: []string{"wss://shared.test", "wss://sfu.first.example/path"}},
		{Server: "second.example", Access: "join", Transports: []string{"wss://shared.test", "ws://10.1.2.3:7880"}},
		{Server: "evil.gouv.example", Access: "deny"},
		{Server: "*.gouv.example", Access: "join"},
		{Server: "10.1.2.4", Access: "join"},
		{Server: "10.*", Access: "join"},
		{Server: "[2001:db8::1]", Access: "join"},
		{Server: "localhost", Access: "join"},
	})
	require.NoError(t, err)
	for address, want := range map[string][]string{
		"wss://shared.test":                 {"first.example:8448", "second.example"},
		"wss://SHARED.test:443/":            {"first.example:8448", "second.example"},
		"wss://sfu.first.example/path":      {"first.example:8448"},
		"wss://sfu.first.example":           nil, // first.example without its port is another server
		"wss://sfu.first.example/path/more": nil,
		"ws://sfu.first.example/path":       nil,
		"wss://shared.test:8443":            nil,
		"ws://10.1.2.3:7880":                {"second.example"},
		"ws://10.1.2.3:7881":                nil,
		"wss://rtc.interieur.gouv.example":  {"rtc.interieur.gouv.example", "interieur.gouv.example"},
		"wss://interieur.gouv.example/rtc":  {"interieur.gouv.example"},
		"wss://rtc.second.example":          {"second.example"},
		"wss://second.example.evil.test":    nil,
		"wss://rtcsecond.example":           nil,
		"wss://rtc.evil.gouv.example":       {"rtc.evil.gouv.example"}, // a name of its own; whoever has it must be in the room
		"wss://evil.gouv.example":           nil,
		"wss://unknown.test":                nil,
		"wss://10.1.2.4":                    nil, // an address is in nobody's domain
		"wss://[2001:db8::1]":               nil,
		"wss://[::ffff:10.1.2.4]":           nil,
		"wss://0x0a.1.2.4":                  nil,
		"wss://localhost":                   nil,
		"wss://interieur.gouv.example.":     nil,
		"wss://user@interieur.gouv.example": nil,
		"wss://user:pw@shared.test":         nil,
		"wss://shared.test?x=1":             nil,
		"wss://shared.test#":                nil,
		"file:///shared.test":               nil,
		"gopher://shared.test":              nil,
		"javascript:alert(1)":               nil,
		"wss:shared.test":                   nil,
		"//shared.test":                     nil,
		"shared.test":                       nil,
		"":                                  nil,
		"wss://":                            nil,
		"wss://[":                           nil,
		"wss://shared.test%00":              nil,
		"wss://shared.test\n":               nil,
		"wss://a b.gouv.example":            nil,
		"wss://" + strings.Repeat("a.", 200) + "gouv.example": nil,
		"wss://shared.test/" + strings.Repeat("x", 10<<10):    nil,
		"wss://" + strings.Repeat("a.", 20) + "gouv.example":  deep(8, strings.Repeat("a.", 20)+"gouv.example"),
		"wss://interieur.gouv.example:99999":                  {"interieur.gouv.example"},
	} {
		require.Equal(t, want, policy.Owners(address), "%.80s", address)
	}
}

// deep are a name and those that it is part of, n at most.
func deep(n int, name string) (names []string) {
	for range n {
		names = append(names, name)
		_, name, _ = strings.Cut(name, ".")
	}
	return names
}

func TestPeerRulesThatAreWrong(t *testing.T) {
	for want, rule := range map[string]config.FederationRule{
		`rules[0].server: *.a.example names many servers`:    {Server: "*.a.example", Access: "join", Transports: []string{"wss://a.example"}},
		`rules[0].server: a.exampl? names many servers`:      {Server: "a.exampl?", Access: "join", SigningKeys: []string{"x"}},
		`rules[0].transports: "https://u@a.example"`:         {Server: "a.example", Access: "join", Transports: []string{"https://u@a.example"}},
		`rules[0].signing_keys: "ed25519:1" is not a public`: {Server: "a.example", Access: "join", SigningKeys: []string{"ed25519:1"}},
		`rules[0].signing_keys: "ed25519:1 AAAA" is not`:     {Server: "a.example", Access: "join", SigningKeys: []string{"ed25519:1 AAAA"}},
	} {
		_, err := federation.NewPolicy([]config.FederationRule{rule})
		require.ErrorContains(t, err, "federation."+want)
	}
}

package federation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus/matrixrtc"
)

var (
	nothing = matrixrtc.Access{}
	join    = matrixrtc.Access{Join: true}
	publish = matrixrtc.Access{Join: true, Publish: matrixrtc.AllSources}
	create  = matrixrtc.Access{Join: true, Publish: matrixrtc.AllSources, Create: true}
)

func TestPolicy(t *testing.T) {
	rules := []config.FederationRule{
		{Server: "own.example", Access: "create"},
		{Server: "bad.partner.example", Access: "deny"},
		{Server: "*.partner.example", Access: "join"},
		{Server: "lent.example:8448", Access: "join", Publish: true},
		{Server: "dc?.example", Access: "join"},
		{Server: "a*a.example", Access: "join"},
		{Server: "[2001:db8::1]:*", Access: "join"},
		{Server: "127.0.0.31:18448", Access: "create"},
	}
	policy, err := federation.NewPolicy(rules)
	require.NoError(t, err)
	for server, want := range map[string]matrixrtc.Access{
		"own.example":                   create,
		"OWN.Example":                   create,
		"own.example:8448":              nothing,
		"own.example.evil.example":      nothing,
		"evil.own.example":              nothing,
		"ownxexample":                   nothing,
		"x.partner.example":             join,
		"x.y.partner.example":           join,
		"partner.example":               nothing,
		"bad.partner.example":           nothing,
		"lent.example:8448":             publish,
		"lent.example":                  nothing,
		"dc1.example":                   join,
		"dc.example":                    nothing,
		"dc12.example":                  nothing,
		"aa.example":                    join,
		"a.example":                     nothing,
		"[2001:db8::1]:8448":            join,
		"[2001:DB8::1]:8448":            join,
		"127.0.0.31:18448":              create,
		"127.0.0.31":                    nothing,
		"":                              nothing,
		"own.example\n":                 nothing,
		"own.example/x.partner.example": nothing,
		"evil/x.partner.example":        nothing,
		strings.Repeat("x", 250) + ".partner.example": nothing,
	} {
		require.Equal(t, want, policy.Access(server), "%q", server)
	}
}

// Limits take from what an access gives.
func TestPolicyLimits(t *testing.T) {
	policy, err := federation.NewPolicy([]config.FederationRule{
		{Server: "hotline.example", Access: "create", Sources: []string{"microphone"}, MaxParticipants: 10, LongestCall: time.Hour},
		{Server: "lent.example", Access: "join", Publish: true, Sources: []string{"camera", "screen_share"}},
		{Server: "partner.example", Access: "join"},
	})
	require.NoError(t, err)
	for server, want := range map[string]matrixrtc.Access{
		"hotline.example": {Join: true, Create: true, Publish: matrixrtc.Microphone, Calls: matrixrtc.Bounds{MaxParticipants: 10, Longest: time.Hour}},
		"lent.example":    {Join: true, Publish: matrixrtc.Camera | matrixrtc.ScreenShare},
		"partner.example": join,
		"unnamed.example": nothing,
	} {
		require.Equal(t, want, policy.Access(server), server)
	}
}

func TestNobodyByDefault(t *testing.T) {
	policy, err := federation.NewPolicy(nil)
	require.NoError(t, err)
	require.Equal(t, nothing, policy.Access("own.example"))
}

func TestReplaceIsAllOrNothing(t *testing.T) {
	policy, err := federation.NewPolicy([]config.FederationRule{{Server: "a.example", Access: "join"}})
	require.NoError(t, err)
	require.Error(t, policy.Replace([]config.FederationRule{{Server: "b.example", Access: "join"}, {Server: "c.example", Access: "all"}}))
	require.Equal(t, join, policy.Access("a.example"))
	require.Equal(t, nothing, policy.Access("b.example"))
	require.NoError(t, policy.Replace([]config.FederationRule{{Server: "b.example", Access: "join"}}))
	require.Equal(t, nothing, policy.Access("a.example"))
	require.Equal(t, join, policy.Access("b.example"))
}

func TestRulesThatAreNotWellFormed(t *testing.T) {
	for name, c := range map[string]struct {
		rule config.FederationRule
		want string
	}{
		"no server":         {config.FederationRule{Access: "join"}, "federation.rules[1].server: names no server"},
		"a scheme":          {config.FederationRule{Server: "https://a.example", Access: "join"}, "federation.rules[1].server: \"https://a.example\" is not a server name"},
		"a space":           {config.FederationRule{Server: "a.example ", Access: "join"}, "federation.rules[1].server: \"a.example \" is not a server name"},
		"another alphabet":  {config.FederationRule{Server: "é.example", Access: "join"}, "is not a server name"},
		"too long":          {config.FederationRule{Server: strings.Repeat("a", 256), Access: "join"}, "at most 255"},
		"no access":         {config.FederationRule{Server: "a.example"}, "federation.rules[1].access: \"\" is none of deny, join, create"},
		"an unknown source": {config.FederationRule{Server: "a.example", Access: "create", Sources: []string{"screen"}}, "federation.rules[1].sources: \"screen\" is none of"},
		"an unknown access": {config.FederationRule{Server: "a.example", Access: "Join"}, "federation.rules[1].access: \"Join\" is none of"},
	} {
		t.Run(name, func(t *testing.T) {
			policy, err := federation.NewPolicy([]config.FederationRule{{Server: "b.example", Access: "join"}, c.rule})
			require.ErrorContains(t, err, c.want)
			require.Nil(t, policy)
		})
	}
	_, err := federation.NewPolicy([]config.FederationRule{{Server: strings.Repeat("a", 255), Access: "join"}})
	require.NoError(t, err)
}

func TestServerNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a.example": true, "A.example": true, "a-b.example": true, "a.example:1": true, "a.example:65535": true,
		"a.example:08448": true, "1.2.3.4": true, "1.2.3.4:8448": true, "[::1]": true, "[::1]:8448": true, "[2001:DB8::1]": true,
		strings.Repeat("a", 255): true,

		"": false, "a.example:": false, "a.example:0": false, "a.example:00000": false, "a.example:65536": false,
		"a.example:000001": false, "a.example:-1": false, "a.example:x": false, "::1": false, "[::1": false, "[1.2.3.4]": false,
		"[::1%25eth0]": false, "[]": false, "a_b.example": false, "a b": false, "a.example/": false, "@a.example": false, "é": false,
		":8448": false, strings.Repeat("a", 256): false,
	} {
		require.Equal(t, want, federation.ValidServerName(name), "%q", name)
	}
}

// TestFullAccess: names are compared whole and as they are written, and nobody
// is refused to join.
func TestFullAccess(t *testing.T) {
	full, join := matrixrtc.Access{Join: true, Publish: matrixrtc.AllSources, Create: true}, matrixrtc.Access{Join: true}
	listed := federation.NewFullAccess(false, []string{"a.example", "B.example:8448", "*", "*.example"})
	for name, want := range map[string]matrixrtc.Access{
		"a.example": full, "B.example:8448": full, "A.example": join, "b.example:8448": join, "a.example:8448": join,
		"B.example": join, "c.example": join, "": join, "nonsense/": join,
	} {
		require.Equal(t, want, listed.Access(name), name)
	}
	require.Equal(t, full, federation.NewFullAccess(true, nil).Access("any.example"))
}

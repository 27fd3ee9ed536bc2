package federation_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus/matrixrtc"
)

var (
	nothing = matrixrtc.Access{}
	join    = matrixrtc.Access{Join: true}
	publish = matrixrtc.Access{Join: true, Publish: true}
	create  = matrixrtc.Access{Join: true, Publish: true, Create: true}
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

func FuzzPolicy(f *testing.F) {
	f.Add("own.example", "*.example")
	f.Add("127.0.0.1:1", "127.0.0.?:*")
	f.Add("[::1]:1", "[::1]")
	f.Fuzz(func(t *testing.T, server, pattern string) {
		policy, err := federation.NewPolicy([]config.FederationRule{{Server: pattern, Access: "join"}})
		if err != nil {
			return
		}
		allowed := policy.Access(server).Join
		if allowed && strings.ContainsAny(server, "/@?#\\ \n\x00%") {
			t.Fatalf("%q is no server name and may join by %q", server, pattern)
		}
		if allowed && !strings.ContainsAny(pattern, "*?") && !strings.EqualFold(server, pattern) {
			t.Fatalf("%q may join by the plain name %q", server, pattern)
		}
	})
}

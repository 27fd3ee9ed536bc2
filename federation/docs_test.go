package federation_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus/matrixrtc"
)

// The example of docs/federation.md does what the page says of it.
func TestTheExampleOfTheDocumentation(t *testing.T) {
	page, err := os.ReadFile("../docs/federation.md")
	require.NoError(t, err)
	_, example, ok := strings.Cut(string(page), "```yaml\n")
	require.True(t, ok)
	example, _, _ = strings.Cut(example, "```")
	var parsed struct {
		Federation struct{ Rules []config.FederationRule }
	}
	require.NoError(t, yaml.Unmarshal([]byte(example), &parsed))
	policy, err := federation.NewPolicy(parsed.Federation.Rules)
	require.NoError(t, err)
	for server, want := range map[string]matrixrtc.Access{
		"interieur.example.gouv.fr": create,
		"guests.example.gouv.fr":    nothing,
		"finances.example.gouv.fr":  join,
		"a.b.example.gouv.fr":       join,
		"example.gouv.fr":           nothing,
		"a.example.gouv.fr:8448":    nothing,
		"legacy.example.org:8448":   publish,
		"legacy.example.org":        nothing,
		"unnamed.example":           nothing,
	} {
		require.Equal(t, want, policy.Access(server), server)
	}
}

package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"passerelle/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestWrongFiles loads files that are wrong in many ways, together with a
// wrong environment, and compares what an operator reads.
func TestWrongFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			environ := []string{
				"PASSERELLE_SERVER_PUBLIC_ULR=https://rtc.example.org",
				"PASSERELLE_HOMESERVER=hunter2",
				"PASSERELLE_LIVEKIT_EMBEDDED_UDP_PORT=hunter2",
				"PASSERELLE_FEDERATION_CA_FILES=mistakes_test.go, testdata/none.pem",
			}
			_, err := config.Load(file, environ)
			require.Error(t, err)
			got := err.Error() + "\n"
			require.NotContains(t, got, "hunter2")
			require.NotContains(t, got, "devsecret")
			require.Equal(t, strings.Count(got, "\n"), len(lines(t, err))+1, "one line each, and one that counts them")

			_, again := config.Load(file, environ)
			require.Equal(t, err, again, "the order is always the same")
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(string(want), got))
		})
	}
}

// TestOneMistake is the shortest answer of all: a line that counts, and one
// that helps.
func TestOneMistake(t *testing.T) {
	_, err := load(t, "server: {public_url: 'https://rtc.example.org', lisen: ':1'}", unverified)
	require.EqualError(t, err, "The configuration has 1 mistake:\n"+
		"  server.lisen: line 1: there is no such key (did you mean listen?)")
}

// TestSuggestions are for unknown keys.
func TestSuggestions(t *testing.T) {
	const none = "remove it; docs/configuration.md lists all keys"
	for key, want := range map[string]string{
		"Log":         "did you mean log?",
		"databse":     "did you mean database?",
		"level":       "did you mean log.level?",
		"udp_port":    "did you mean livekit.embedded.udp_port?",
		"x":           none,
		"turn":        none,
		"homeservers": "did you mean homeserver?",
		"bridges":     none,
	} {
		_, err := load(t, key+": 1", publicURL, unverified)
		require.Equal(t, []string{key + ": line 1: there is no such key (" + want + ")"}, lines(t, err))
	}
	for name, want := range map[string]string{
		"PASSERELLE_SERVER_LISTENS":    "did you mean PASSERELLE_SERVER_LISTEN?",
		"PASSERELLE_LIVEKIT_UDP_PORT":  none,
		"PASSERELLE_":                  none,
		"PASSERELLE_SERVER.LISTEN":     "did you mean PASSERELLE_SERVER_LISTEN?",
		"PASSERELLE_server_listen":     none,
		"PASSERELLE_FEDERATION_RULE":   "did you mean PASSERELLE_FEDERATION_RULES?",
		"PASSERELLE_FEDERATION_RULES_": "did you mean PASSERELLE_FEDERATION_RULES?",
	} {
		_, err := load(t, "", publicURL, unverified, name+"=x")
		require.Equal(t, []string{name + ": there is no such key (" + want + ")"}, lines(t, err))
	}
}

func TestRulesInTheEnvironment(t *testing.T) {
	for value, want := range map[string]string{
		"":                          "PASSERELLE_FEDERATION_RULES: is not a list",
		"[":                         "PASSERELLE_FEDERATION_RULES: is not a list",
		`{"server": "a"}`:           "federation.rules: the value does not fit",
		`["a.example.org"]`:         "federation.rules[0]: line 1: a section is expected here",
		`[{"server": "A.example"}]`: "federation.rules[0].server: has capital letters",
		`[{"sever": "a.example"}]`:  "federation.rules[0].sever: line 1: there is no such key (did you mean server?)",
		`[{"server": ["a.example"], "access": "join"}]`: "federation.rules[0].server: the value does not fit (write a text)",
	} {
		_, err := load(t, "", publicURL, unverified, "PASSERELLE_FEDERATION_RULES="+value)
		require.ErrorContains(t, err, "\n  "+want, value)
	}
}

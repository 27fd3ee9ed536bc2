package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"passerelle/config"
)

const exampleFile = "../example-config.yaml"

func example(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(exampleFile)
	require.NoError(t, err)
	return string(text)
}

func TestExampleIsTheDefault(t *testing.T) {
	want := config.Default()
	want.Server.PublicURL = "https://rtc.example.org"
	want.Focus.Membership = "unverified"
	got, err := config.Load(exampleFile, []string{publicURL, unverified})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(&want, got))

	_, err = config.Load(exampleFile, []string{unverified})
	require.Equal(t, []string{"server.public_url: is missing (write the address that clients reach, such as https://rtc.example.gouv.fr)"},
		lines(t, err), "nothing else has to be set, but for the homeserver")
}

// TestExampleExplainsEveryKey finds each key of the structs in the example,
// with a comment above it.
func TestExampleExplainsEveryKey(t *testing.T) {
	var document yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(example(t)), &document))
	for _, k := range keys() {
		node := document.Content[0]
		for name := range strings.SplitSeq(k.path, ".") {
			at := -1
			for i := 0; i < len(node.Content); i += 2 {
				if node.Content[i].Value == name {
					at = i
				}
			}
			require.NotEqual(t, -1, at, "%s is not in the example", k.path)
			require.NotEmpty(t, node.Content[at].HeadComment, "%s has no comment", k.path)
			node = node.Content[at+1]
		}
	}
}

// commentedOut are the lines of the example that show what a list may hold:
// the mark is not followed by a space, as it is before words.
var commentedOut = regexp.MustCompile(`(?m)^( *)#(\w+:.*| +- .*)$`)

// TestExamplesInComments takes the marks away and loads what then stands there.
func TestExamplesInComments(t *testing.T) {
	text := example(t)
	for _, match := range commentedOut.FindAllStringSubmatch(text, -1) {
		if name, isKey := strings.CutSuffix(match[2], ":"); isKey {
			text = strings.Replace(text, match[1]+name+": []\n", "", 1)
		}
	}
	text = commentedOut.ReplaceAllString(text, "$1$2")
	c, err := load(t, text, publicURL, unverified)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff([]config.FederationRule{
		{Server: "interieur.example.gouv.fr", Access: "create"},
		{Server: "guests.example.gouv.fr", Access: "deny"},
		{Server: "hotline.example.gouv.fr", Access: "create", Sources: []string{"microphone"}, MaxParticipants: 10, LongestCall: 2 * time.Hour},
		{Server: "*.example.gouv.fr", Access: "join"},
		{Server: "legacy.example.org:8448", Access: "join", Publish: true},
		{Server: "partner.example.org", Access: "join", Transports: []string{"wss://calls.example.net"},
			SigningKeys: []string{"ed25519:a_RXGa l8Hft5qXKn1vfHrg3p4+W8gELQVo8N13JkluMfmn2sQ"}},
	}, c.Federation.Rules))
}

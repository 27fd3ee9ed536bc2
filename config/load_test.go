package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"passerelle/config"
)

// publicURL is the one key without a default.
const publicURL = "PASSERELLE_SERVER_PUBLIC_URL=https://rtc.example.org"

// unverified stands instead of a homeserver that says who is in a room.
const unverified = "PASSERELLE_FOCUS_MEMBERSHIP=unverified"

// goodSecret is long, and nobody's.
const goodSecret = "XqfG0vGZp1mYw7Rk2sTn8uBd4hJc6aLe"

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	require.NoError(t, os.Chmod(path, mode))
	return path
}

// load loads a file with the text, over which the variables stand.
func load(t *testing.T, text string, environ ...string) (*config.Config, error) {
	t.Helper()
	return config.Load(write(t, "config.yaml", text, 0o600), environ)
}

// lines are the mistakes of an error, which must be nothing else.
func lines(t *testing.T, err error) []string {
	t.Helper()
	mistakes, ok := errors.AsType[config.Mistakes](err)
	require.True(t, ok, "%v", err)
	out := make([]string, len(mistakes))
	for i, m := range mistakes {
		out[i] = m.String()
	}
	return out
}

func TestDefaults(t *testing.T) {
	want := config.Default()
	want.Server.PublicURL = "https://rtc.example.org"
	want.Focus.Membership = "unverified"
	for name, text := range map[string]string{
		"empty":            "",
		"comments":         "# nothing\n",
		"null":             "~\n",
		"empty sections":   "server:\nlivekit:\n  embedded:\n",
		"keys without one": "server: {listen: }\nfederation:\n  rules:\n  ca_files: ~\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := load(t, text, publicURL, unverified)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(&want, got))
		})
	}
	got, err := config.Load("", []string{publicURL, unverified, "HOME=/root", "PASSERELLE_CONFIG=x", "NAMES=PASSERELLE_X"})
	require.NoError(t, err, "no file")
	require.Empty(t, cmp.Diff(&want, got))
}

func TestValues(t *testing.T) {
	got, err := load(t, `
server: {public_url: "http://127.0.0.1:8080/rtc"}
livekit:
  mode: external
  url: wss://sfu.example.org
  key: APIxYz
  secret: `+goodSecret+`
focus: {token_lifetime: 90m, max_participants: 12, membership: unverified}
federation:
  rules:
    - {server: "*.Example.org:8448", access: join, publish: true}
  allow_networks: [10.0.0.0/8, "fd00::/8"]
`, `PASSERELLE_FEDERATION_RULES=[{"server": "a.example.org:8448", "access": "join", "publish": true}, {"server": "*", "access": "deny"}]`,
		"PASSERELLE_FOCUS_MAX_PARTICIPANTS=7",
		"PASSERELLE_LIVEKIT_EMBEDDED_LOOPBACK=true",
		"PASSERELLE_LIVEKIT_EMBEDDED_STUN_SERVERS= stun.example.org:3478, [2001:db8::1]:3478,")
	require.NoError(t, err, "what the environment says replaces the file's")
	want := config.Default()
	want.Focus.Membership = "unverified"
	want.Server.PublicURL = "http://127.0.0.1:8080/rtc"
	want.LiveKit.Mode, want.LiveKit.URL, want.LiveKit.Key, want.LiveKit.Secret = "external", "wss://sfu.example.org", "APIxYz", goodSecret
	want.LiveKit.Embedded.Loopback = true
	want.LiveKit.Embedded.STUNServers = []string{"stun.example.org:3478", "[2001:db8::1]:3478"}
	want.Focus.TokenLifetime, want.Focus.MaxParticipants = 90*time.Minute, 7
	want.Federation.AllowNetworks = []string{"10.0.0.0/8", "fd00::/8"}
	want.Federation.Rules = []config.FederationRule{
		{Server: "a.example.org:8448", Access: "join", Publish: true}, {Server: "*", Access: "deny"},
	}
	require.Empty(t, cmp.Diff(&want, got))
}

// TestServiceLinks are Kubernetes', and no mistakes of anybody's.
func TestServiceLinks(t *testing.T) {
	for _, variable := range []string{
		"PASSERELLE_SERVICE_HOST=10.0.0.1", "PASSERELLE_SERVICE_PORT=8080", "PASSERELLE_SERVICE_PORT_HTTP=8080",
		"PASSERELLE_PORT=tcp://10.0.0.1:8080", "PASSERELLE_PORT_8080_TCP=tcp://10.0.0.1:8080",
		"PASSERELLE_PORT_8080_TCP_PROTO=tcp", "PASSERELLE_PORT_7882_UDP_PORT=7882", "PASSERELLE_PORT_8080_TCP_ADDR=10.0.0.1",
	} {
		_, err := load(t, "", publicURL, unverified, variable)
		require.NoError(t, err, variable)
	}
	for _, variable := range []string{"PASSERELLE_SERVICE=x", "PASSERELLE_PORTS=1", "PASSERELLE_PORT_HTTP=1", "PASSERELLE_SERVICE_PORT_=x"} {
		_, err := load(t, "", publicURL, unverified, variable)
		require.Error(t, err, variable)
	}
}

func TestSecretFiles(t *testing.T) {
	external := func(file string) string {
		return "livekit: {mode: external, url: 'ws://127.0.0.1:7880', key: APIx, secret_file: '" + file + "'}"
	}
	t.Run("read", func(t *testing.T) {
		for _, mode := range []os.FileMode{0o400, 0o600, 0o640} {
			got, err := load(t, external(write(t, "secret", goodSecret+"\r\n", mode)), publicURL, unverified)
			require.NoError(t, err)
			require.Equal(t, goodSecret, got.LiveKit.Secret.Reveal())
		}
		got, err := load(t, "database: {type: postgres}", publicURL, unverified,
			"PASSERELLE_DATABASE_URI_FILE="+write(t, "uri", "postgres://u:p@h/d\n", 0o600))
		require.NoError(t, err)
		require.Equal(t, "postgres://u:p@h/d", got.Database.URI.Reveal())
	})
	missing, folder := filepath.Join(t.TempDir(), "none"), t.TempDir()
	readable, odd := write(t, "secret", goodSecret, 0o644), write(t, "odd name", goodSecret, 0o604)
	empty, two := write(t, "empty", "\n", 0o600), write(t, "two", goodSecret+"\n"+goodSecret, 0o600)
	short, large := write(t, "short", "hunter2\n", 0o600), write(t, "large", strings.Repeat("x", 1<<20+1), 0o600)
	const instead = " (name a file that holds the secret and nothing else)"
	for file, want := range map[string]string{
		missing:  "livekit.secret_file: " + missing + ": no such file or directory" + instead,
		folder:   "livekit.secret_file: " + folder + ": is a folder" + instead,
		readable: "livekit.secret_file: every user of this machine can use " + readable + " (run: chmod o= " + readable + ")",
		odd:      "livekit.secret_file: every user of this machine can use " + odd + " (run: chmod o= '" + odd + "')",
		empty:    "livekit.secret_file: " + empty + " is empty" + instead,
		two:      "livekit.secret_file: " + two + " holds more than one line" + instead,
		large:    "livekit.secret_file: " + large + ": is larger than 1048576 bytes" + instead,
		short:    "livekit.secret: is shorter than 32 characters (make one with: openssl rand -hex 32)",
	} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := load(t, external(file), publicURL, unverified)
			require.Equal(t, []string{want}, lines(t, err))
		})
	}
	t.Run("twice", func(t *testing.T) {
		_, err := load(t, external(write(t, "secret", goodSecret, 0o600)), publicURL, unverified, "PASSERELLE_LIVEKIT_SECRET="+goodSecret)
		require.Equal(t, []string{"livekit.secret: stands here and in livekit.secret_file (keep one of them)"}, lines(t, err))
	})
}

func TestFileRefused(t *testing.T) {
	noFile, folder := filepath.Join(t.TempDir(), "none.yaml"), t.TempDir()
	large := write(t, "large.yaml", "# "+strings.Repeat("x", 1<<20), 0o600)
	const instead = " (name a file that can be read with -config)"
	for path, want := range map[string]string{
		noFile: noFile + ": no such file or directory" + instead,
		folder: folder + ": is a directory" + instead,
		large:  large + ": is larger than 1048576 bytes" + instead,
	} {
		_, err := config.Load(path, nil)
		require.Equal(t, []string{want}, lines(t, err), "nothing is said to be missing from what was not read")
		_, err = config.Load(path, []string{"PASSERELLE_X=y"})
		require.Len(t, lines(t, err), 2, "the environment was read")
	}
	for name, c := range map[string]struct{ text, want string }{
		"not YAML":           {"server: [\n", "did not find expected node content"},
		"a tab":              {"server:\n\tlisten: x\n", "cannot start any token"},
		"two documents":      {"server:\n---\nlog:\n", "holds more than one YAML document (remove the line --- and what follows it)"},
		"a list":             {"- server\n", "the file: line 1: a section is expected here (write its keys below it, indented)"},
		"a text":             {"hunter2\n", "the file: line 1: a section is expected here"},
		"an alias":           {"server: &s {listen: ':1'}\nlog: *s\n", "log: YAML aliases are not read (write the value itself)"},
		"a merge":            {"log: {<<: {level: info}}\n", "log.<<: YAML aliases are not read"},
		"an alias in a list": {"federation: {ca_files: [&a x, *a]}\n", "federation.ca_files: line 1: a list of texts is expected"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text, publicURL, unverified)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "hunter2")
			require.Len(t, lines(t, err), 1)
		})
	}
}

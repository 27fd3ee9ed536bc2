package config_test

import (
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/config"
)

// minimal is what an lk-jwt-service needs to start.
var minimal = []string{
	"LIVEKIT_URL=wss://sfu.example.org", "LIVEKIT_KEY=matrix-rtc", "LIVEKIT_SECRET=" + goodSecret,
	"LIVEKIT_FULL_ACCESS_HOMESERVERS=example.org",
}

func dropIn(t *testing.T, more ...string) *config.Config {
	t.Helper()
	c, err := config.Load("", append(minimal[:len(minimal):len(minimal)], more...))
	require.NoError(t, err)
	require.NotNil(t, c.DropIn)
	return c
}

func TestDropInNeedsNothingElse(t *testing.T) {
	c := dropIn(t, "LIVEKIT_PORT=tcp://10.0.0.1:7880", "LIVEKIT_SERVICE_HOST=10.0.0.1", "PATH=/bin")
	require.Equal(t, ":8080", c.Server.Listen)
	require.Empty(t, c.Server.PrivateListen)
	require.True(t, c.Database.InMemory())
	require.Equal(t, "external", c.LiveKit.Mode)
	require.Equal(t, "direct", c.LiveKit.Signalling)
	require.Equal(t, "wss://sfu.example.org", c.LiveKit.URL)
	require.Equal(t, "wss://sfu.example.org", c.LiveKit.PublicURL)
	require.Equal(t, "matrix-rtc", c.LiveKit.Key)
	require.Equal(t, goodSecret, c.LiveKit.Secret.Reveal())
	require.Equal(t, []string{"example.org"}, c.DropIn.FullAccess)
	require.Zero(t, c.Focus.Limits)
	require.Zero(t, c.Homeserver)
	require.Zero(t, c.DropIn.SanityCheckInterval)
	require.Equal(t, 30*time.Second, c.DropIn.MembershipCheckInterval)
	require.Empty(t, c.DropIn.Warnings)
}

func TestAConfigurationOfOurOwnIsNoDropIn(t *testing.T) {
	c, err := config.Load("", append(minimal, publicURL, "PASSERELLE_FOCUS_MEMBERSHIP=unverified"))
	require.NoError(t, err)
	require.Nil(t, c.DropIn)
	require.Equal(t, "embedded", c.LiveKit.Mode)

	c, err = config.Load(write(t, "c.yaml", "server: {public_url: 'https://rtc.example.org'}\nfocus: {membership: unverified}", 0o600), minimal)
	require.NoError(t, err)
	require.Nil(t, c.DropIn)

	_, err = config.Load("", []string{"LIVEKIT_SERVICE_HOST=10.0.0.1", "LIVEKIT_URL="})
	require.ErrorContains(t, err, "server.public_url: is missing", "what Kubernetes makes is no drop-in, and empty is not set")
}

func TestDropInReadsEveryVariable(t *testing.T) {
	c := dropIn(t,
		"LIVEKIT_FULL_ACCESS_HOMESERVERS=a.example, b.example:8448 c.example,\td.example",
		"LIVEKIT_JWT_BIND=localhost:8081",
		"LIVEKIT_LOG_LEVEL=DEBUG",
		"LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS=45",
		"LIVEKIT_CS_API_URL_OVERRIDES= a.example = http://synapse:8008/ ,127.0.0.1:8448=https://127.0.0.1:8448",
		"LIVEKIT_REDIS_URL=redis://user:hunter2@redis:6379/2",
		"LIVEKIT_REDIS_PASSWORD=other",
		"LIVEKIT_INSECURE_SKIP_VERIFY_TLS=YES_I_KNOW_WHAT_I_AM_DOING",
		"LIVEKIT_CAN_UPDATE_OWN_METADATA=true",
		"LIVEKIT_AS_TOKEN="+goodSecret,
		"LIVEKIT_HS_TOKEN="+reversed(goodSecret),
		"LIVEKIT_HS_SERVER_NAME=a.example",
		"LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS=0",
	)
	require.Equal(t, "localhost:8081", c.Server.Listen)
	require.Equal(t, "debug", c.Log.Level)
	d := c.DropIn
	require.False(t, d.Everybody)
	require.Equal(t, []string{"a.example", "b.example:8448", "c.example", "d.example"}, d.FullAccess)
	require.Equal(t, 45*time.Second, d.SanityCheckInterval)
	require.Equal(t, map[string]string{"a.example": "http://synapse:8008", "127.0.0.1:8448": "https://127.0.0.1:8448"}, d.ClientAPIs)
	require.Equal(t, "redis://user:hunter2@redis:6379/2", d.RedisURL.Reveal())
	require.Equal(t, "other", d.RedisPassword.Reveal())
	require.True(t, d.SkipVerifyTLS)
	require.True(t, d.CanUpdateOwnMetadata)
	require.Zero(t, d.MembershipCheckInterval)
	require.Equal(t, config.Homeserver{
		ServerName: "a.example", URL: "http://synapse:8008",
		ASToken: goodSecret, HSToken: config.Secret(reversed(goodSecret)),
	}, c.Homeserver)
	require.NotContains(t, fmt.Sprintf("%+v", *d), "hunter2", "secrets do not print")
}

func TestDropInReadsFiles(t *testing.T) {
	file := func(text string) string { return write(t, "file", text, 0o644) } // as Kubernetes mounts them
	bare := []string{"LIVEKIT_URL=ws://127.0.0.1:7880", "LIVEKIT_FULL_ACCESS_HOMESERVERS=*"}
	c, err := config.Load("", append(bare, "LIVEKIT_KEY_FROM_FILE="+file("id\n"), "LIVEKIT_SECRET_FROM_FILE="+write(t, "secret", goodSecret+"\n", 0o644)))
	require.NoError(t, err)
	require.Equal(t, "id", c.LiveKit.Key)
	require.Equal(t, goodSecret, c.LiveKit.Secret.Reveal())
	require.True(t, c.DropIn.Everybody)

	c = dropIn(t, "LIVEKIT_KEY_FILE="+file("other-id: "+reversed(goodSecret)+"\n"))
	require.Equal(t, "other-id", c.LiveKit.Key, "it wins over the others")
	require.Equal(t, reversed(goodSecret), c.LiveKit.Secret.Reveal())

	c = dropIn(t, "LIVEKIT_AS_TOKEN=no", "LIVEKIT_HS_SERVER_NAME=example.org",
		"LIVEKIT_AS_REGISTRATION_FILE="+file("id: livekit\nurl: null\nas_token: "+goodSecret+"\nhs_token: '"+reversed(goodSecret)+"'\n"))
	require.Equal(t, goodSecret, c.Homeserver.ASToken.Reveal(), "it wins over the variables")
	require.Equal(t, reversed(goodSecret), c.Homeserver.HSToken.Reveal())
}

func TestDropInWarnsAndStarts(t *testing.T) {
	for variable, warning := range map[string]string{
		"LIVEKIT_SECRET=secret": "is shorter than 32 characters",
		"LIVEKIT_SECRET=devkey-devkey-devkey-devkey-devkey-devkey": "stands in a public sample",
		"LIVEKIT_INSECURE_SKIP_VERIFY_TLS=true":                    "certificates are checked",
		"LIVEKIT_FULL_ACCESS_HOMESERVERS=*, a.example":             "counts alone only",
		"LIVEKIT_FULL_ACCESS_HOMESERVERS=*":                        "every homeserver in the world",
		"LIVEKIT_LOG_LEVEL=loud":                                   "info is used",
	} {
		c := dropIn(t, variable)
		require.Len(t, c.DropIn.Warnings, 1, variable)
		require.Contains(t, c.DropIn.Warnings[0], warning)
		require.False(t, c.DropIn.SkipVerifyTLS)
		require.NotContains(t, c.DropIn.Warnings[0], "devkey")
	}
	require.False(t, dropIn(t, "LIVEKIT_FULL_ACCESS_HOMESERVERS=*, a.example").DropIn.Everybody)
	require.Empty(t, dropIn(t, "LIVEKIT_INSECURE_SKIP_VERIFY_TLS=").DropIn.Warnings)
	require.Equal(t, ":8099", dropIn(t, "LIVEKIT_JWT_PORT=8099").Server.Listen)
}

// TestDropInNamesAllMistakes: all at once, none with a secret in it.
func TestDropInNamesAllMistakes(t *testing.T) {
	_, err := config.Load("", []string{
		"LIVEKIT_URL=sfu.example.org",
		"LIVEKIT_SECRET_FROM_FILE=/nowhere",
		"LIVEKIT_JWT_BIND=:8080", "LIVEKIT_JWT_PORT=8080",
		"LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS=1m",
		"LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS=-1",
		"LIVEKIT_CS_API_URL_OVERRIDES=example.org",
		"LIVEKIT_REDIS_URL=http://user:hunter2@redis",
		"LIVEKIT_CAN_UPDATE_OWN_METADATA=yes",
		"LIVEKIT_HS_TOKEN=hunter2",
		"PASSERELLE_LIVEKIT_URL=ws://sfu", "PASSERELLE_LOG_FORMAT=xml", "PASSERELLE_LOG_LEVL=info",
	})
	require.Equal(t, []string{
		"LIVEKIT_AS_TOKEN: is missing (set it, or none of the application service's variables)",
		"LIVEKIT_CAN_UPDATE_OWN_METADATA: is neither true nor false (write true or false)",
		`LIVEKIT_CS_API_URL_OVERRIDES: "example.org" has no address of the form name=address (write example.org=https://matrix.example.org, separated by commas)`,
		"LIVEKIT_FULL_ACCESS_HOMESERVERS: is missing (write the names of the homeservers whose users may start calls, separated by commas, or * for all)",
		"LIVEKIT_HS_SERVER_NAME: is missing (set it, or none of the application service's variables)",
		"LIVEKIT_JWT_PORT: stands beside LIVEKIT_JWT_BIND (keep LIVEKIT_JWT_BIND)",
		"LIVEKIT_KEY: is missing (write the ID of LiveKit's API key, or name a file that holds it in LIVEKIT_KEY_FROM_FILE)",
		"LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS: is not a number of seconds (write a whole number from 0 (never) to 86400)",
		"LIVEKIT_REDIS_URL: is not an address of a Redis (write redis://redis.example.gouv.fr:6379/0)",
		"LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS: is not a number of seconds (write a whole number from 0 (never) to 86400)",
		"LIVEKIT_SECRET_FROM_FILE: /nowhere: no such file or directory (name a file that can be read)",
		"LIVEKIT_URL: is not an address (write the address that clients reach LiveKit at, such as wss://sfu.example.gouv.fr)",
		"PASSERELLE_LIVEKIT_URL: is decided by the LIVEKIT_ variables (remove it, or use a configuration file)",
		"PASSERELLE_LOG_LEVL: there is no such key (did you mean PASSERELLE_LOG_LEVEL?)",
		`log.format: "xml" is not known here (write auto, json or console)`,
	}, lines(t, err))
	for _, file := range []string{"one-line", "a: b: c", ":", "key:"} {
		_, err := config.Load("", append(minimal, "LIVEKIT_KEY_FILE="+write(t, "key", file, 0o600)))
		require.ErrorContains(t, err, "is not one line of the form key: secret", file)
	}
	for _, file := range []string{"", "as_token: x", "- as_token", "{"} {
		_, err := config.Load("", append(minimal, "LIVEKIT_HS_SERVER_NAME=a.example", "LIVEKIT_AS_REGISTRATION_FILE="+write(t, "as", file, 0o600)))
		require.ErrorContains(t, err, "is not a registration with as_token and hs_token", file)
	}
}

func TestDropInTakesOurKeysBesides(t *testing.T) {
	c := dropIn(t, "PASSERELLE_DATABASE_PATH=/var/lib/passerelle/passerelle.db", "PASSERELLE_SERVER_PRIVATE_LISTEN=127.0.0.1:9090",
		"PASSERELLE_LOG_FORMAT=json", "PASSERELLE_FOCUS_LIMITS_USER=5")
	require.False(t, c.Database.InMemory())
	require.Equal(t, "127.0.0.1:9090", c.Server.PrivateListen)
	require.Equal(t, 5, c.Focus.Limits.User)
	require.False(t, dropIn(t, "PASSERELLE_DATABASE_TYPE=postgres", "PASSERELLE_DATABASE_URI=postgres://u@h/d").Database.InMemory())
}

// TestDocsListEveryVariable: the page for those who come from lk-jwt-service
// has a line for each, and for no other.
func TestDocsListEveryVariable(t *testing.T) {
	page, err := os.ReadFile("../docs/lk-jwt-service.md")
	require.NoError(t, err)
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(LIVEKIT_[A-Z_]+)` \\| .*\\. \\|$").FindAllStringSubmatch(string(page), -1) {
		listed = append(listed, row[1])
	}
	require.ElementsMatch(t, config.LKJWTVariables, listed)
}

// FuzzDropIn: whatever stands in the variables, it is either good or named, and
// no secret is repeated.
func FuzzDropIn(f *testing.F) {
	for i := range config.LKJWTVariables {
		for _, value := range []string{"", "wss://u:p@h/#f", "a=b,c", "1", "-1", "*", "true", "redis://:p@h:1/x?y", "/dev/null"} {
			f.Add(uint8(i), value)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		name := config.LKJWTVariables[int(which)%len(config.LKJWTVariables)]
		const secret = "GuessMyPassword-4711"
		c, err := config.Load("", append(minimal, "LIVEKIT_REDIS_PASSWORD="+secret, name+"="+value))
		if err != nil {
			require.NotContains(t, err.Error(), secret)
			require.NotEmpty(t, lines(t, err))
			return
		}
		require.NotContains(t, fmt.Sprintf("%+v %+v", *c, *c.DropIn), secret)
	})
}

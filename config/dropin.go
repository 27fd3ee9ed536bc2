package config

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/viper"
)

// DropIn is what the variables of an lk-jwt-service installation say beyond
// what the other sections hold. No key of ours sets it; it is there when
// Passerelle was started in that service's place, with its LIVEKIT_* variables
// and no configuration file. docs/lk-jwt-service.md has a line for each.
type DropIn struct {
	// Everybody: all servers have full access, written as * alone.
	Everybody bool
	// FullAccess are the names of the servers whose users start calls, publish
	// and delegate leaves. They are compared whole and as they are written.
	FullAccess []string
	// ClientAPIs are the addresses of client-server APIs by server name, for
	// those that are not looked up.
	ClientAPIs map[string]string
	// SkipVerifyTLS: certificates of homeservers are not checked.
	SkipVerifyTLS bool
	// SanityCheckInterval is how often the SFU is asked whether a participant
	// whose leave was delegated is still there; 0 is never.
	SanityCheckInterval time.Duration
	// RedisURL is where delegated leaves are kept: redis, rediss or unix. It
	// may hold a password. Empty: they are kept where grants are.
	RedisURL Secret
	// RedisPassword, when set, stands for the one in RedisURL.
	RedisPassword Secret
	// CanUpdateOwnMetadata lets participants change their name and attributes
	// on the SFU.
	CanUpdateOwnMetadata bool
	// MembershipCheckInterval is how often those in calls are compared with the
	// members of the rooms, as an application service; 0 is never.
	MembershipCheckInterval time.Duration
	// Warnings are what the operator should know of at every start.
	Warnings []string
}

// InMemory tells whether grants are kept in memory alone: no database was
// configured, and this Passerelle needs none.
func (d Database) InMemory() bool { return d.Type == "sqlite" && d.Path == "" }

// lkJWTVariables are the variables of lk-jwt-service. Kubernetes makes others
// that begin like them where a service is called livekit, so those that are not
// listed mean nothing.
var lkJWTVariables = []string{
	"LIVEKIT_URL", "LIVEKIT_KEY", "LIVEKIT_KEY_FROM_FILE", "LIVEKIT_SECRET", "LIVEKIT_SECRET_FROM_FILE", "LIVEKIT_KEY_FILE",
	"LIVEKIT_FULL_ACCESS_HOMESERVERS", "LIVEKIT_JWT_BIND", "LIVEKIT_JWT_PORT", "LIVEKIT_LOG_LEVEL",
	"LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS", "LIVEKIT_CS_API_URL_OVERRIDES", "LIVEKIT_REDIS_URL", "LIVEKIT_REDIS_PASSWORD",
	"LIVEKIT_INSECURE_SKIP_VERIFY_TLS", "LIVEKIT_CAN_UPDATE_OWN_METADATA",
	"LIVEKIT_AS_TOKEN", "LIVEKIT_HS_TOKEN", "LIVEKIT_HS_SERVER_NAME", "LIVEKIT_AS_REGISTRATION_FILE",
	"LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS",
}

// isDropIn tells whether the environment is that of an lk-jwt-service.
// server.public_url is the one key that every configuration of our own has.
func isDropIn(environ []string) bool {
	found := false
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if name == "PASSERELLE_SERVER_PUBLIC_URL" {
			return false
		}
		found = found || value != "" && slices.Contains(lkJWTVariables, name)
	}
	return found
}

// dropInKeys are the keys, or sections, of ours that may be set beside the
// variables of lk-jwt-service. What those decide cannot be said twice.
var dropInKeys = []string{
	"server.private_listen", "server.trusted_proxies", "server.stop_timeout",
	"log.", "database.", "federation.ca_files", "federation.timeout",
	"focus.token_lifetime", "focus.empty_timeout", "focus.departure_timeout", "focus.max_participants", "focus.limits.",
}

// loadDropIn reads the variables of lk-jwt-service, and beside them those of
// ours that they leave open.
func loadDropIn(environ []string) (*Config, error) {
	var mistakes Mistakes
	c := dropInDefault()
	values := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	readEnvironment(values, environ, &mistakes)
	for _, l := range leaves() {
		if values.Get(viperKey(l.path)) != nil && !mayStandBeside(l.path) {
			mistakes.add(l.env(), "is decided by the LIVEKIT_ variables", "remove it, or use a configuration file")
		}
	}
	decode(&c, values, &mistakes)
	c.readSecretFiles(&mistakes)
	v := &lkJWT{set: map[string]string{}, mistakes: &mistakes, c: &c}
	for _, variable := range environ {
		if name, value, _ := strings.Cut(variable, "="); value != "" && slices.Contains(lkJWTVariables, name) {
			v.set[name] = value
		}
	}
	v.read()
	c.validateDropIn(&mistakes)
	if err := mistakes.err(); err != nil {
		return nil, err
	}
	return &c, nil
}

func mayStandBeside(path string) bool {
	return slices.ContainsFunc(dropInKeys, func(key string) bool {
		return path == key || strings.HasSuffix(key, ".") && strings.HasPrefix(path, key)
	})
}

// dropInDefault is what no variable means: one listener, nothing on disk, no
// limits (a proxy before it would make all clients one), homeservers wherever
// they are.
func dropInDefault() Config {
	c := Default()
	c.Server.PrivateListen, c.Server.DataDir = "", ""
	c.Database.Path = ""
	c.LiveKit.Mode, c.LiveKit.Signalling = "external", "direct"
	c.Focus.Limits = Limits{}
	c.Focus.Membership = "unverified"
	c.Federation.AllowNetworks = []string{"0.0.0.0/0", "::/0"}
	c.DropIn = &DropIn{}
	return c
}

// validateDropIn checks what our own keys say. The variables of lk-jwt-service
// are checked as they are read.
func (c *Config) validateDropIn(m *Mistakes) {
	if c.Server.PrivateListen != "" {
		checkAddress(m, "server.private_listen", c.Server.PrivateListen, "127.0.0.1:9090")
	}
	checkNetworks(m, "server.trusted_proxies", c.Server.TrustedProxies)
	checkDuration(m, "server.stop_timeout", c.Server.StopTimeout, time.Second, 10*time.Minute)
	c.Log.validate(m)
	database := c.Database
	database.Path = cmp.Or(database.Path, "memory")
	database.validate(m)
	c.Focus.validate(m)
	c.Federation.validate(m)
}

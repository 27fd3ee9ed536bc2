package config_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"passerelle/config"
)

// key is one key of the configuration, found by reflection.
type key struct {
	path  string
	index []int
}

func (k key) of(c *config.Config) reflect.Value {
	return reflect.ValueOf(c).Elem().FieldByIndex(k.index)
}

func (k key) variable() string {
	return "PASSERELLE_" + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

func keys() []key {
	var found []key
	var walk func(reflect.Type, string, []int)
	walk = func(section reflect.Type, prefix string, index []int) {
		for i := range section.NumField() {
			field := section.Field(i)
			if field.Tag.Get("mapstructure") == "-" {
				continue
			}
			k := key{prefix + field.Tag.Get("mapstructure"), append(index[:len(index):len(index)], i)}
			if field.Type.Kind() == reflect.Struct {
				walk(field.Type, k.path+".", k.index)
			} else {
				found = append(found, k)
			}
		}
	}
	walk(reflect.TypeFor[config.Config](), "", nil)
	return found
}

// another is a valid value of the key that is not its default.
func another(t *testing.T, k key) any {
	t.Helper()
	c := config.Default()
	switch k.path {
	case "server.listen", "server.private_listen":
		return "192.0.2.1:9999"
	case "server.public_url":
		return "https://other.example.org/path"
	case "log.level":
		return "debug"
	case "log.format":
		return "console"
	case "database.type":
		return "postgres"
	case "database.uri":
		return config.Secret("postgres://user@host/database")
	case "database.uri_file":
		return write(t, "uri", "postgres://user@host/database", 0o600)
	case "livekit.mode":
		return "external"
	case "livekit.url":
		return "wss://sfu.example.org"
	case "livekit.secret":
		return config.Secret(goodSecret)
	case "livekit.secret_file":
		return write(t, "secret", goodSecret, 0o600)
	case "livekit.signalling":
		return "direct"
	case "livekit.public_url":
		return "wss://sfu.example.org"
	case "focus.membership":
		return "unverified"
	case "homeserver.listen":
		return "127.0.0.1:8090"
	case "homeserver.url":
		return "http://127.0.0.1:8008"
	case "homeserver.as_token":
		return config.Secret(goodSecret)
	case "homeserver.hs_token":
		return config.Secret(reversed(goodSecret))
	case "homeserver.as_token_file":
		return write(t, "as_token", goodSecret, 0o600)
	case "homeserver.hs_token_file":
		return write(t, "hs_token", reversed(goodSecret), 0o600)
	case "announce.well_known_file":
		return write(t, "client.json", wellKnown, 0o644)
	case "livekit.embedded.port":
		return 7890
	case "livekit.embedded.node_ip":
		return "192.0.2.10"
	case "livekit.embedded.stun_servers":
		return []string{"a.example.org:3478", "b.example.org:3478"}
	case "focus.longest_call":
		return 8 * time.Hour
	case "federation.rules":
		return []config.FederationRule{{
			Server: "*.example.org", Access: "create", Publish: true, Sources: []string{"microphone", "screen_share"},
			MaxParticipants: 10, LongestCall: 90 * time.Minute,
		}}
	case "federation.allow_networks", "server.trusted_proxies":
		return []string{"10.0.0.0/8", "fd00::/8"}
	case "federation.ca_files":
		return []string{write(t, "ca.pem", authority(t), 0o644)}
	}
	switch old := k.of(&c).Interface().(type) {
	case string:
		return old + "other"
	case int:
		return old + 1
	case bool:
		return !old
	case time.Duration:
		return old + time.Second
	}
	t.Fatalf("%s: this test knows no other value of its type", k.path)
	return nil
}

// beside are the variables without which a value would not be valid.
func beside(k key) []string {
	external := []string{
		"PASSERELLE_LIVEKIT_MODE=external", "PASSERELLE_LIVEKIT_URL=ws://127.0.0.1:7880",
		"PASSERELLE_LIVEKIT_KEY=APIx", "PASSERELLE_LIVEKIT_SECRET=" + goodSecret,
	}
	switch k.path {
	case "database.type", "database.uri", "database.uri_file":
		return []string{"PASSERELLE_DATABASE_TYPE=postgres", "PASSERELLE_DATABASE_URI=postgres://user@host/database"}
	case "livekit.mode", "livekit.url", "livekit.key", "livekit.secret", "livekit.secret_file":
		return external
	case "livekit.signalling", "livekit.public_url":
		return []string{"PASSERELLE_LIVEKIT_SIGNALLING=direct", "PASSERELLE_LIVEKIT_PUBLIC_URL=ws://sfu.example.org"}
	}
	if strings.HasPrefix(k.path, "homeserver.") || k.path == "federation.signed_requests" {
		return []string{"PASSERELLE_HOMESERVER_SERVER_NAME=example.org", "PASSERELLE_HOMESERVER_URL=http://127.0.0.1:8009",
			"PASSERELLE_HOMESERVER_HS_TOKEN=" + reversed(goodSecret)}
	}
	return nil
}

func reversed(s string) string {
	letters := []byte(s)
	slices.Reverse(letters)
	return string(letters)
}

// TestEveryKeyCanBeSetInTheEnvironment sets each key of the structs.
func TestEveryKeyCanBeSetInTheEnvironment(t *testing.T) {
	for _, k := range keys() {
		t.Run(k.path, func(t *testing.T) {
			value := another(t, k)
			text := fmt.Sprint(value)
			switch v := value.(type) {
			case config.Secret:
				text = v.Reveal()
			case []string:
				text = strings.Join(v, ",")
			case []config.FederationRule:
				asJSON, err := json.Marshal([]map[string]any{{
					"server": v[0].Server, "access": v[0].Access, "publish": v[0].Publish, "sources": v[0].Sources,
					"max_participants": v[0].MaxParticipants, "longest_call": v[0].LongestCall.String(),
				}})
				require.NoError(t, err)
				text = string(asJSON)
			}
			environ := []string{k.variable() + "=" + text}
			for _, other := range append(beside(k), publicURL, unverified) {
				// The key itself, and the twin of a secret's file, stay out.
				name, _, _ := strings.Cut(other, "=")
				if name != k.variable() && name+"_FILE" != k.variable() {
					environ = append(environ, other)
				}
			}
			c, err := config.Load("", environ)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(value, k.of(c).Interface()))
		})
	}
}

// TestChanged changes each key of the structs alone.
func TestChanged(t *testing.T) {
	running := config.Default()
	applied, restart := config.Changed(&running, &running)
	require.Empty(t, applied)
	require.Empty(t, restart)
	hot := map[string]bool{
		"log.level": true, "federation.rules": true,
		"focus.token_lifetime": true, "focus.empty_timeout": true, "focus.departure_timeout": true, "focus.max_participants": true, "focus.longest_call": true, "focus.membership": true,
		"focus.delegation":     true,
		"focus.limits.address": true, "focus.limits.server": true, "focus.limits.user": true,
	}
	everything := config.Default()
	for _, k := range keys() {
		fresh := config.Default()
		k.of(&fresh).Set(reflect.ValueOf(another(t, k)))
		k.of(&everything).Set(k.of(&fresh))
		applied, restart := config.Changed(&running, &fresh)
		if hot[k.path] {
			require.Equal(t, []string{k.path}, applied)
			require.Empty(t, restart, k.path)
		} else {
			require.Equal(t, []string{k.path}, restart)
			require.Empty(t, applied, k.path)
		}
	}
	applied, restart = config.Changed(&running, &everything)
	require.Len(t, applied, len(hot))
	require.Len(t, restart, len(keys())-len(hot))
}

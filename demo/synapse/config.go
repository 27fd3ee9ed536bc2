package synapse

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// Transport is what a homeserver announces as its users' own SFU (MSC4143).
type Transport struct {
	Type              string `yaml:"type"`
	URL               string `yaml:"url"`
	LiveKitServiceURL string `yaml:"livekit_service_url"`
}

// writeConfig writes homeserver.yaml and the logging configuration.
func (s *Server) writeConfig(o Options, certFile, keyFile string) (string, error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	logging := map[string]any{
		"version":    1,
		"formatters": map[string]any{"plain": map[string]any{"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
		"handlers":   map[string]any{"console": map[string]any{"class": "logging.StreamHandler", "formatter": "plain"}},
		"root":       map[string]any{"level": "WARNING", "handlers": []string{"console"}},
	}
	if err := writeYAML(in("log.yaml"), logging); err != nil {
		return "", err
	}
	listener := func(port int, tls bool, resource string) map[string]any {
		return map[string]any{"port": port, "bind_addresses": []string{o.Address}, "type": "http", "tls": tls,
			"resources": []any{map[string]any{"names": []string{resource}, "compress": false}}}
	}
	config := map[string]any{
		"server_name":                   s.Name,
		"public_baseurl":                s.ClientURL + "/",
		"report_stats":                  false,
		"signing_key_path":              in("signing.key"),
		"log_config":                    in("log.yaml"),
		"media_store_path":              in("media"),
		"pid_file":                      in("synapse.pid"),
		"macaroon_secret_key":           s.secret,
		"form_secret":                   s.secret,
		"registration_shared_secret":    s.secret,
		"database":                      map[string]any{"name": "sqlite3", "args": map[string]any{"database": in("homeserver.db")}},
		"listeners":                     []any{listener(o.ClientPort, false, "client"), listener(o.FederationPort, true, "federation")},
		"tls_certificate_path":          certFile,
		"tls_private_key_path":          keyFile,
		"federation_custom_ca_list":     []string{o.Authority.File},
		"ip_range_blacklist":            []string{}, // its default refuses loopback
		"federation_ip_range_blacklist": []string{}, // likewise
		"trusted_key_servers":           []string{}, // its default asks a server on the Internet
		"suppress_key_server_warning":   true,
		"presence":                      map[string]any{"enabled": false},
		"bcrypt_rounds":                 4,
	}
	if !o.Bare {
		o.switchOn(config)
	}
	registrations, err := o.writeRegistrations()
	if err != nil {
		return "", err
	}
	config["app_service_config_files"] = registrations
	path := in(configFile)
	return path, writeYAML(path, config)
}

// switchOn switches everything on that calls use.
func (o Options) switchOn(config map[string]any) {
	config["max_event_delay_duration"] = "24h" // this switches MSC4140 on
	config["experimental_features"] = map[string]any{
		"msc4143_enabled": true, // what transports there are
		"msc4222_enabled": true, // state_after in /sync
		"msc4354_enabled": true, // sticky events
		"msc4502_enabled": true, // is somebody in a room
		"msc4512_enabled": true, // requests are handed to a service
	}
	config["matrix_rtc"] = map[string]any{"transports": o.Transports}
	if !o.DefaultLimits {
		maps.Copy(config, unlimited())
	}
	if o.StrangersLimited {
		delete(config, "rc_delayed_event_mgmt")
	}
}

// writeRegistrations writes a file for each application service that has none,
// and returns all files.
func (o Options) writeRegistrations() (files []string, err error) {
	files = append(files, o.AppServices...)
	for i, registration := range o.Registrations {
		file := filepath.Join(o.Dir, fmt.Sprintf("registration-%d.yaml", i))
		if err := writeYAML(file, registration); err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// unlimited lifts the rate limits that two people in a demonstration, who
// start over and over, run into.
func unlimited() map[string]any {
	limit := map[string]any{"per_second": 100000, "burst_count": 100000}
	return map[string]any{
		"rc_message":            limit,
		"rc_delayed_event_mgmt": limit,
		"rc_registration":       limit,
		"rc_room_creation":      limit,
		"rc_joins_per_room":     limit,
		"rc_key_requests":       limit,
		"rc_login":              map[string]any{"address": limit, "account": limit, "failed_attempts": limit},
		"rc_joins":              map[string]any{"local": limit, "remote": limit},
		"rc_invites":            map[string]any{"per_room": limit, "per_user": limit, "per_issuer": limit},
		"rc_federation": map[string]any{"window_size": 1000, "sleep_limit": 10000, "sleep_delay": 1,
			"reject_limit": 100000, "concurrent": 1000},
	}
}

func writeYAML(path string, content any) error {
	encoded, err := yaml.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(path, encoded, 0o600)
}

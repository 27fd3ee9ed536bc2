package homeserver

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Registration is what the homeserver reads to know us (application service
// API, "Registration"). This one sees no event and speaks for nobody: it may
// ask who is in a room, and is handed the requests for calls.
type Registration struct {
	ASToken, HSToken string
	// ProxyURL is where the homeserver reaches homeserver.listen; empty when
	// nothing is to be handed over.
	ProxyURL string
}

const (
	// scope lets the service ask who is in a room (MSC4502).
	scope = "urn:matrix:client:io.element.msc4502:rooms:is_joined"
	// prefix is the one that Synapse lets be claimed (MSC4512).
	prefix = "rtc/livekit"
)

// registrationFile has the keys that Synapse reads, 1.161 and later. It ignores
// misspelt ones in silence; `passerelle check` asks what became of them.
type registrationFile struct {
	ID              string              `yaml:"id"`
	URL             *string             `yaml:"url"` // null: no events are pushed
	ASToken         string              `yaml:"as_token"`
	HSToken         string              `yaml:"hs_token"`
	SenderLocalpart string              `yaml:"sender_localpart"`
	RateLimited     bool                `yaml:"rate_limited"`
	Namespaces      map[string][]string `yaml:"namespaces"`
	Scopes          []string            `yaml:"io.element.msc4502.scopes"`
	ProxyPrefix     string              `yaml:"io.element.msc4512.proxy_prefix,omitempty"`
	ProxyURL        string              `yaml:"io.element.msc4512.proxy_url,omitempty"`
}

// YAML is the file. It holds both tokens.
func (r Registration) YAML() ([]byte, error) {
	file := registrationFile{
		ID: "passerelle_focus", ASToken: r.ASToken, HSToken: r.HSToken,
		SenderLocalpart: "_passerelle_focus",
		Namespaces:      map[string][]string{"users": {}, "aliases": {}, "rooms": {}},
		Scopes:          []string{scope},
	}
	if r.ProxyURL != "" {
		file.ProxyPrefix, file.ProxyURL = prefix, r.ProxyURL
	}
	text, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("write the registration: %w", err)
	}
	return append([]byte("# Passerelle's registration. It holds secrets: only the homeserver may read it.\n"), text...), nil
}

// HomeserverLines is what belongs into homeserver.yaml, for a registration in
// the named file.
func HomeserverLines(file string) string {
	return `app_service_config_files:
  - ` + file + `
experimental_features:
  msc4143_enabled: true        # which media server is this homeserver's
  msc4222_enabled: true        # clients learn of each change of a room's state
  msc4354_enabled: true        # who is in a call, without state events
  msc4502_enabled: true        # may Passerelle ask who is in a room
  msc4512_enabled: true        # requests for calls are handed to Passerelle
max_event_delay_duration: 24h  # who crashes leaves the call's list
rc_message: {per_second: 10, burst_count: 100}   # each token request counts as a message
rc_delayed_event_mgmt: {per_second: 1, burst_count: 20}
`
}

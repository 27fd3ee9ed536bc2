package homeserver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"

	"go.yaml.in/yaml/v3"
)

// Transports is what a homeserver announces of our service (MSC4143, MSC4195).
// Clients of all servers compare the addresses letter by letter, so each is
// written once, from one text.
type Transports struct {
	// ServiceURL is the address that clients know, http or https.
	ServiceURL string
	// ServerName is the homeserver's; empty where it is not known.
	ServerName string
	// Proxied: the homeserver hands us the requests of its users.
	Proxied bool
}

// transport has the address of the service that clients ask themselves, and that
// of its media server, for which they ask through their homeserver. Who finds
// the second does not publish in any other way.
type transport struct {
	Type       string `yaml:"type" json:"type"`
	ServiceURL string `yaml:"livekit_service_url" json:"livekit_service_url"`
	URL        string `yaml:"url,omitempty" json:"url,omitempty"`
}

// Text is the part for homeserver.yaml and the one for
// .well-known/matrix/client, each below a comment that says which it is.
func (t Transports) Text() (string, error) {
	older := transport{Type: "livekit", ServiceURL: t.ServiceURL}
	newer := older
	if t.Proxied {
		u, err := url.Parse(t.ServiceURL)
		if err != nil {
			return "", fmt.Errorf("the service's address: %w", err)
		}
		u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
		newer.URL = u.String()
	}
	var lines bytes.Buffer
	encoder := yaml.NewEncoder(&lines)
	encoder.SetIndent(2)
	err := encoder.Encode(map[string]any{"matrix_rtc": map[string]any{"transports": []transport{newer}}})
	if err != nil {
		return "", fmt.Errorf("write the transports: %w", err)
	}
	document, err := json.MarshalIndent(map[string]any{"org.matrix.msc4143.rtc_foci": []transport{older}}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the document: %w", err)
	}
	return fmt.Sprintf("# homeserver.yaml\n%s\n"+
		"# https://%s/.well-known/matrix/client, which older clients read:\n# beside what is there, with Access-Control-Allow-Origin: *\n%s\n",
		&lines, cmp.Or(t.ServerName, "SERVER_NAME"), document), nil
}

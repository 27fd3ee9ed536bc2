package homeserver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
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

// older is what is announced to clients that ask the service themselves.
func (t Transports) older() transport { return transport{Type: "livekit", ServiceURL: t.ServiceURL} }

// newer is what is announced to clients that may ask through their homeserver.
func (t Transports) newer() (transport, error) {
	newer := t.older()
	if !t.Proxied {
		return newer, nil
	}
	u, err := url.Parse(t.ServiceURL)
	if err != nil {
		return transport{}, fmt.Errorf("the service's address: %w", err)
	}
	u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	newer.URL = u.String()
	return newer, nil
}

// foci is the key of the older document.
const foci = "org.matrix.msc4143.rtc_foci"

// Answer is the body of the answer to GET …/rtc/transports (MSC4143).
func (t Transports) Answer() ([]byte, error) {
	newer, err := t.newer()
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"rtc_transports": []transport{newer}})
}

// WellKnown is the document /.well-known/matrix/client with our service in it:
// beside what is in the given one, a JSON object, and instead of what that says
// of media servers.
func (t Transports) WellKnown(document []byte) ([]byte, error) {
	var content map[string]json.RawMessage
	if json.Unmarshal(document, &content) != nil || content == nil {
		return nil, errors.New("it is no JSON object")
	}
	ours, err := json.Marshal([]transport{t.older()})
	if err != nil {
		return nil, fmt.Errorf("write the document: %w", err)
	}
	content[foci] = ours
	return json.Marshal(content)
}

// Text is the part for homeserver.yaml and the one for
// .well-known/matrix/client, each below a comment that says which it is.
func (t Transports) Text() (string, error) {
	newer, err := t.newer()
	if err != nil {
		return "", err
	}
	var lines bytes.Buffer
	encoder := yaml.NewEncoder(&lines)
	encoder.SetIndent(2)
	err = encoder.Encode(map[string]any{"matrix_rtc": map[string]any{"transports": []transport{newer}}})
	if err != nil {
		return "", fmt.Errorf("write the transports: %w", err)
	}
	document, err := json.MarshalIndent(map[string]any{foci: []transport{t.older()}}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("write the document: %w", err)
	}
	return fmt.Sprintf("# homeserver.yaml\n%s\n"+
		"# https://%s/.well-known/matrix/client, which older clients read:\n# beside what is there, with Access-Control-Allow-Origin: *\n%s\n",
		&lines, cmp.Or(t.ServerName, "SERVER_NAME"), document), nil
}

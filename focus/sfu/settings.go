package sfu

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"passerelle/config"
)

// Settings are what a child needs to know, written to its standard input as
// one JSON document: not to its arguments or environment, which others on the
// machine can read.
type Settings struct {
	// Dir is the folder of the control socket.
	Dir string `json:"dir"`
	// Port is the loopback port of LiveKit's API and signalling.
	Port int `json:"port"`
	// UDPPort and TCPPort carry media; a TCPPort of 0 is off.
	UDPPort int `json:"udp_port"`
	TCPPort int `json:"tcp_port"`
	// NodeIP is the address that clients send media to.
	NodeIP      string   `json:"node_ip"`
	STUNServers []string `json:"stun_servers"`
	Loopback    bool     `json:"loopback"`
	// WebhookURL is where the child reports, "" for nowhere.
	WebhookURL string `json:"webhook_url"`
	// OrphanTimeout is how long the child lives without a leash.
	OrphanTimeout time.Duration `json:"orphan_timeout"`
	Key           string        `json:"key"`
	Secret        string        `json:"secret"`
}

// maxSettings bounds what a child reads from its standard input.
const maxSettings = 64 << 10

// ReadSettings reads what [Supervisor] wrote.
func ReadSettings(r io.Reader) (Settings, error) {
	var s Settings
	data, err := io.ReadAll(io.LimitReader(r, maxSettings+1))
	if err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	if len(data) > maxSettings {
		return s, errors.New("read settings: too large")
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, errors.New("read settings: not the JSON expected; this command is run by passerelle serve")
	}
	if s.Dir == "" || s.Port == 0 || s.UDPPort == 0 || s.NodeIP == "" || s.Key == "" || s.Secret == "" {
		return s, errors.New("read settings: something is missing; this command is run by passerelle serve")
	}
	return s, nil
}

// Fingerprint tells two settings apart without giving away the secret.
func (s Settings) Fingerprint() string {
	secret := s.Secret
	s.Secret = ""
	encoded, err := json.Marshal(s)
	if err != nil {
		// Only numbers and strings.
		panic(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(encoded)
	return hex.EncodeToString(mac.Sum(nil))
}

// newSettings fills in what the configuration leaves open.
func newSettings(c config.Embedded, dir, webhookURL string, k apiKey) (Settings, error) {
	s := Settings{
		Dir: dir, Port: c.Port, UDPPort: c.UDPPort, TCPPort: c.TCPPort, NodeIP: c.NodeIP,
		STUNServers: c.STUNServers, Loopback: c.Loopback, WebhookURL: webhookURL,
		OrphanTimeout: c.OrphanTimeout, Key: k.id, Secret: k.secret,
	}
	var err error
	if s.NodeIP == "" {
		if s.NodeIP, err = firstAddress(); err != nil {
			return s, err
		}
	}
	if s.Port == 0 {
		if s.Port, err = freePort("tcp"); err != nil {
			return s, err
		}
	}
	if s.UDPPort == 0 {
		if s.UDPPort, err = freePort("udp"); err != nil {
			return s, err
		}
	}
	return s, nil
}

// firstAddress is the first address of this machine that others could reach.
func firstAddress() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("list this machine's addresses: %w", err)
	}
	for _, a := range addresses {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr().String(), nil
		}
	}
	return "", errors.New("livekit.embedded.node_ip: this machine has no address that others could reach (write the one that clients shall send media to)")
}

func freePort(network string) (int, error) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

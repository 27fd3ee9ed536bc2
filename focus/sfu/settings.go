package sfu

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	NodeIP string `json:"node_ip"`
	// STUNServers are told to clients, host:port.
	STUNServers []string `json:"stun_servers"`
	// Loopback offers loopback addresses to clients as well.
	Loopback bool `json:"loopback"`
	// WebhookURL is where the child reports, "" for nowhere.
	WebhookURL string `json:"webhook_url"`
	// OrphanTimeout is how long the child lives without a leash.
	OrphanTimeout time.Duration `json:"orphan_timeout"`
	// Key and Secret are the one API key that LiveKit accepts.
	Key    string `json:"key"`
	Secret string `json:"secret"`
}

// maxSettings bounds what a child reads from its standard input. It is less
// than a pipe holds, so that a parent never waits for a child that does not
// read.
const maxSettings = 32 << 10

// ReadSettings reads what a [Supervisor] wrote: one JSON document of at most
// 32 KiB, up to the end of r. Its errors never quote the document.
func ReadSettings(r io.Reader) (Settings, error) {
	var s Settings
	data, err := io.ReadAll(io.LimitReader(r, maxSettings+1))
	if err != nil {
		return s, fmt.Errorf("read settings: %w", err)
	}
	if len(data) > maxSettings {
		return s, errors.New("read settings: too large")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&s) != nil || decoder.Decode(&struct{}{}) != io.EOF {
		return s, errors.New("read settings: not the JSON expected; this command is run by passerelle serve")
	}
	if s.Dir == "" || s.Port <= 0 || s.UDPPort <= 0 || s.NodeIP == "" || s.OrphanTimeout <= 0 || s.Key == "" || s.Secret == "" {
		return s, errors.New("read settings: something is missing; this command is run by passerelle serve")
	}
	return s, nil
}

// Fingerprint tells two settings apart, their secrets included, without giving
// a secret away: a MAC over the rest with the secret as its key.
func (s Settings) Fingerprint() string {
	mac := hmac.New(sha256.New, []byte(s.Secret))
	s.Secret = ""
	mac.Write(s.encode())
	return hex.EncodeToString(mac.Sum(nil))
}

func (s Settings) encode() []byte {
	encoded, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers and strings cannot fail
	}
	return encoded
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
		if s.NodeIP, err = machineAddress(c.Loopback); err != nil {
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
	if len(s.encode()) > maxSettings {
		return s, errors.New("livekit.embedded.stun_servers: too many (write a handful)")
	}
	return s, nil
}

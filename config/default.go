package config

import "time"

// Default is the configuration that an empty file means. It is the only place
// where defaults stand; example-config.yaml repeats them, by test.
func Default() Config {
	return Config{
		Server: Server{
			Listen:        ":8080",
			PrivateListen: "127.0.0.1:9090",
			DataDir:       "data",
			// The reverse proxy of most installations is on the same machine.
			TrustedProxies: []string{"127.0.0.0/8", "::1/128"},
			StopTimeout:    20 * time.Second,
		},
		Log: Log{Level: "info", Format: "auto"},
		Database: Database{
			Type:         "sqlite",
			Path:         "data/passerelle.db",
			MaxOpenConns: 8,
		},
		LiveKit: LiveKit{
			Mode:       "embedded",
			Signalling: "gated",
			Embedded: Embedded{
				Port:          7880,
				UDPPort:       7882,
				TCPPort:       7881,
				STUNServers:   []string{},
				OrphanTimeout: 2 * time.Minute,
			},
		},
		Focus: Focus{
			TokenLifetime:    time.Hour,
			EmptyTimeout:     5 * time.Minute,
			DepartureTimeout: 20 * time.Second,
			Membership:       "required",
			Delegation:       true,
			Limits:           Limits{Address: 100, Server: 500, User: 5},
		},
		Federation: Federation{
			Rules:         []FederationRule{},
			AllowNetworks: []string{},
			CAFiles:       []string{},
			Timeout:       5 * time.Second,
		},
	}
}

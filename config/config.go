// Package config is the only place that knows viper. It turns a YAML file, the
// environment and secret files into plain structs, checks all of them at once,
// and hands every package its own section. It never watches files, and it keeps
// no state: a reload is another Load. A Config is written by nobody once it is
// loaded, so any number of goroutines may read it.
package config

import "time"

// Config is the whole configuration of one Passerelle.
type Config struct {
	Server     Server     `mapstructure:"server"`
	Log        Log        `mapstructure:"log"`
	Database   Database   `mapstructure:"database"`
	LiveKit    LiveKit    `mapstructure:"livekit"`
	Focus      Focus      `mapstructure:"focus"`
	Homeserver Homeserver `mapstructure:"homeserver"`
	Announce   Announce   `mapstructure:"announce"`
	Federation Federation `mapstructure:"federation"`
	// DropIn is nil unless Passerelle stands in for an lk-jwt-service. No key
	// sets it.
	DropIn *DropIn `mapstructure:"-"`
}

// Server is where Passerelle listens and how the world reaches it.
type Server struct {
	// Listen is the address of the public listener: tokens and signalling.
	Listen string `mapstructure:"listen"`
	// PrivateListen is the address of the private listener: health, metrics,
	// LiveKit's webhooks. It must not be reachable from outside.
	PrivateListen string `mapstructure:"private_listen"`
	// PublicURL is the one address that clients know, for tokens and (with the
	// scheme ws or wss) for signalling. It may have a path prefix. Required.
	PublicURL string `mapstructure:"public_url"`
	// DataDir holds what the process writes apart from the database: the
	// SFU's key, its control socket.
	DataDir string `mapstructure:"data_dir"`
	// TrustedProxies are the address ranges (CIDR) of reverse proxies, whose
	// X-Forwarded-For header is believed.
	TrustedProxies []string `mapstructure:"trusted_proxies"`
	// StopTimeout bounds a graceful stop.
	StopTimeout time.Duration `mapstructure:"stop_timeout"`
}

// Log says how much is logged and in which form.
type Log struct {
	// Level is trace, debug, info, warn or error.
	Level string `mapstructure:"level"`
	// Format is json, console, or auto: console on a terminal, else json.
	Format string `mapstructure:"format"`
}

// Database is where rows are kept.
type Database struct {
	// Type is sqlite or postgres.
	Type string `mapstructure:"type"`
	// Path is SQLite's file.
	Path string `mapstructure:"path"`
	// URI is PostgreSQL's connection string. It may hold a password.
	URI Secret `mapstructure:"uri"`
	// URIFile is a file that holds URI.
	URIFile string `mapstructure:"uri_file"`
	// MaxOpenConns bounds the connection pool.
	MaxOpenConns int `mapstructure:"max_open_conns"`
}

// LiveKit is the SFU: our own child process, or one that runs elsewhere.
type LiveKit struct {
	// Mode is embedded or external.
	Mode string `mapstructure:"mode"`
	// URL is the external LiveKit's address: http, https, ws or wss.
	URL string `mapstructure:"url"`
	// Key and Secret are the external LiveKit's API key. Embedded mode makes
	// and keeps its own.
	Key        string `mapstructure:"key"`
	Secret     Secret `mapstructure:"secret"`
	SecretFile string `mapstructure:"secret_file"`
	// Signalling is gated, when clients reach the SFU's signalling through
	// Passerelle's door alone, or direct, when they are sent to PublicURL.
	Signalling string `mapstructure:"signalling"`
	// PublicURL is where clients reach the SFU's signalling when it is direct:
	// ws or wss.
	PublicURL string `mapstructure:"public_url"`
	// Embedded configures `passerelle sfu`.
	Embedded Embedded `mapstructure:"embedded"`
}

// Embedded is the SFU that runs as a child process of this binary.
type Embedded struct {
	// Port is the loopback TCP port of its API and signalling, which only
	// Passerelle uses.
	Port int `mapstructure:"port"`
	// UDPPort carries media. Clients must reach it on NodeIP.
	UDPPort int `mapstructure:"udp_port"`
	// TCPPort carries media where UDP is blocked; 0 is off. It binds every
	// address of the machine.
	TCPPort int `mapstructure:"tcp_port"`
	// NodeIP is the address that clients send media to. Empty: the first
	// address of this machine that is neither loopback nor link-local.
	NodeIP string `mapstructure:"node_ip"`
	// STUNServers are told to clients, host:port. Empty: none is used (a
	// client that reaches NodeIP needs none).
	STUNServers []string `mapstructure:"stun_servers"`
	// Loopback offers loopback addresses too, for trials on one machine.
	Loopback bool `mapstructure:"loopback"`
	// OrphanTimeout is how long the SFU outlives a Passerelle that died,
	// waiting for the next one to adopt it.
	OrphanTimeout time.Duration `mapstructure:"orphan_timeout"`
}

// Focus is how tokens are given and calls are kept.
type Focus struct {
	// TokenLifetime is how long a token admits.
	TokenLifetime time.Duration `mapstructure:"token_lifetime"`
	// EmptyTimeout: how long an SFU room nobody joined is kept.
	EmptyTimeout time.Duration `mapstructure:"empty_timeout"`
	// DepartureTimeout: how long it is kept after the last one left.
	DepartureTimeout time.Duration `mapstructure:"departure_timeout"`
	// MaxParticipants in one call; 0 is no limit.
	MaxParticipants int `mapstructure:"max_participants"`
	// LongestCall is how long one call may go on; 0 is no limit.
	LongestCall time.Duration `mapstructure:"longest_call"`
	// Membership is required, when tokens are for those alone who are joined
	// to the Matrix room as our own homeserver sees it, or unverified, when
	// nobody is asked.
	Membership string `mapstructure:"membership"`
	// Delegation takes over the leaves that clients left with their homeserver
	// (MSC4140): puts them off and has them sent.
	Delegation bool `mapstructure:"delegation"`
	// Limits bound how often tokens are asked for.
	Limits Limits `mapstructure:"limits"`
}

// Limits bound token requests a second; ten times as many may come at once.
// 0 is no limit.
type Limits struct {
	// Address counts by the client's address, or its /64 network.
	Address int `mapstructure:"address"`
	// Server counts by the user's homeserver.
	Server int `mapstructure:"server"`
	// User counts by the user, once it is proved who that is.
	User int `mapstructure:"user"`
}

// Homeserver is our own homeserver, beside which this Passerelle stands. All
// fields are empty where it is spoken to as any other one is.
type Homeserver struct {
	// ServerName is the part of its users' IDs after the first colon.
	ServerName string `mapstructure:"server_name"`
	// URL is its client-server API as this machine reaches it, http or https.
	URL string `mapstructure:"url"`
	// Listen is the address at which it hands us the requests of its users and
	// of other homeservers (MSC4512). Empty is off.
	Listen string `mapstructure:"listen"`
	// ASToken is the as_token of our registration there: with it is asked who
	// is in a room, and delayed events are managed without the limits that
	// strangers have.
	ASToken     Secret `mapstructure:"as_token"`
	ASTokenFile string `mapstructure:"as_token_file"`
	// HSToken is the hs_token of our registration there: it proves that a
	// proxied request comes from the homeserver.
	HSToken     Secret `mapstructure:"hs_token"`
	HSTokenFile string `mapstructure:"hs_token_file"`
}

// Announce is what Passerelle tells clients in place of a homeserver that does
// not, on the public listener. All of it is off by default.
type Announce struct {
	// Transports answers GET …/rtc/transports (MSC4143).
	Transports bool `mapstructure:"transports"`
	// WellKnownFile is a JSON file with the document that stands at
	// /.well-known/matrix/client without us. It is served with the media server
	// added. Empty is off.
	WellKnownFile string `mapstructure:"well_known_file"`
}

// Federation is whom to trust and how to reach them.
type Federation struct {
	// Rules say what the users of which servers may do. The first that
	// matches decides; a server that none names may do nothing.
	Rules []FederationRule `mapstructure:"rules"`
	// AllowNetworks lists the private, loopback or otherwise special address
	// ranges (CIDR) that homeservers may have. All others of that kind are
	// refused; public addresses need no mention.
	AllowNetworks []string `mapstructure:"allow_networks"`
	// CAFiles are PEM files of certificate authorities to trust beside the
	// system's.
	CAFiles []string `mapstructure:"ca_files"`
	// Timeout bounds one look-up at a homeserver, discovery included.
	Timeout time.Duration `mapstructure:"timeout"`
	// SignedRequests takes get_token of other homeservers on the public
	// listener, where our own one does not hand it over, and checks their
	// signatures.
	SignedRequests bool `mapstructure:"signed_requests"`
}

// FederationRule is one rule.
type FederationRule struct {
	// Server is a server name or a glob with * and ?, compared in lower case,
	// port included.
	Server string `mapstructure:"server"`
	// Access is deny, join or create.
	Access string `mapstructure:"access"`
	// Publish lends publishing to those who may only join. Those who may
	// create always publish.
	Publish bool `mapstructure:"publish"`
	// Sources are what those who publish may send: microphone, camera,
	// screen_share. None is all of them.
	Sources []string `mapstructure:"sources"`
	// MaxParticipants and LongestCall bound the calls that they start, in place
	// of those of the focus; 0 is what those say.
	MaxParticipants int           `mapstructure:"max_participants"`
	LongestCall     time.Duration `mapstructure:"longest_call"`
	// Transports are the addresses of the server's media servers, as its
	// homeserver announces them (ws or wss). For one server, not a glob.
	Transports []string `mapstructure:"transports"`
	// SigningKeys are all keys that the server signs requests with, each written
	// as "ed25519:NAME KEY". Empty: it is asked for them. For one server.
	SigningKeys []string `mapstructure:"signing_keys"`
}

package child

import (
	"fmt"
	"net/netip"

	"github.com/livekit/livekit-server/pkg/config"
	"github.com/livekit/livekit-server/pkg/routing"
	"github.com/livekit/livekit-server/pkg/service"
	"github.com/livekit/livekit-server/pkg/telemetry/prometheus"
	"github.com/livekit/protocol/logger"
	"go.yaml.in/yaml/v3"

	"passerelle/focus/sfu"
)

// newServer builds LiveKit and binds its media ports.
func newServer(s sfu.Settings) (*service.LivekitServer, error) {
	// JSON lines on standard error, for our parent. What pion calls errors are
	// clients that went away; of those that matter LiveKit speaks itself.
	logger.InitFromConfig(&logger.Config{
		JSON: true, Level: "warn",
		ComponentLevels: map[string]string{"pion": "fatal", "transport.pion": "fatal"},
	}, "livekit")
	conf, err := newConfig(s)
	if err != nil {
		return nil, err
	}
	node, err := routing.NewLocalNode(conf)
	if err != nil {
		return nil, fmt.Errorf("LiveKit's node: %w", err)
	}
	// Without this, LiveKit dereferences nil two seconds after its start.
	if err := prometheus.Init(string(node.NodeID()), node.NodeType()); err != nil {
		return nil, fmt.Errorf("LiveKit's metrics: %w", err)
	}
	server, err := service.InitializeServer(conf, node)
	if err != nil {
		return nil, fmt.Errorf("LiveKit: %w", err)
	}
	return server, nil
}

// newConfig is LiveKit's own reading of our document: keys that it does not
// know are errors.
func newConfig(s sfu.Settings) (*config.Config, error) {
	document, err := newDocument(s)
	if err != nil {
		return nil, err
	}
	encoded, err := yaml.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encode LiveKit's configuration: %w", err)
	}
	conf, err := config.NewConfig(string(encoded), true, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("LiveKit's configuration: %w", err)
	}
	if err := conf.ValidateKeys(); err != nil {
		return nil, fmt.Errorf("LiveKit's key: %w", err)
	}
	return conf, nil
}

// noSTUN is told to clients when the operator lists no STUN server. An empty
// list would mean LiveKit's defaults, which are public servers of others; and
// the SFU's own port would not do, for a browser then takes its media for
// answers of a STUN server. On port 9 of the client's own machine nobody
// answers.
const noSTUN = "127.0.0.1:9"

// newDocument is LiveKit's configuration. Everything that would make it look
// for its own address, or tell clients to, is set.
func newDocument(s sfu.Settings) (map[string]any, error) {
	node, err := netip.ParseAddr(s.NodeIP)
	if err != nil {
		return nil, fmt.Errorf("livekit.embedded.node_ip: %w", err)
	}
	stun := s.STUNServers
	if len(stun) == 0 {
		stun = []string{noSTUN}
	}
	rtc := map[string]any{
		"udp_port":        s.UDPPort,
		"tcp_port":        s.TCPPort,
		"node_ip":         s.NodeIP,
		"use_external_ip": false,
		"stun_servers":    stun,
	}
	if s.Loopback || node.IsLoopback() {
		rtc["enable_loopback_candidate"] = true
	}
	if node.IsLoopback() {
		// All candidates are rewritten to node_ip, so only those of the loopback
		// interface are true. Not an "ips" filter: 127.0.0.31 works as well as
		// 127.0.0.1, and no interface lists it.
		rtc["interfaces"] = map[string]any{"includes": []string{"lo"}}
	}
	d := map[string]any{
		"port":           s.Port,
		"bind_addresses": []string{"127.0.0.1"},
		"keys":           map[string]string{s.Key: s.Secret},
		"rtc":            rtc,
		// Rooms are made by the focus alone, for those who may start a call.
		"room": map[string]any{"auto_create": false},
		"turn": map[string]any{"enabled": false},
	}
	if s.WebhookURL != "" {
		d["webhook"] = map[string]any{"api_key": s.Key, "urls": []string{s.WebhookURL}}
	}
	return d, nil
}

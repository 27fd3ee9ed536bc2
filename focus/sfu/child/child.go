// Package child is the program `passerelle sfu`: LiveKit's server, run by
// package sfu. It is the only package that links LiveKit's server.
//
// LiveKit ends the whole process on some of its own faults; that is why it has
// one of its own.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/livekit/livekit-server/pkg/config"
	"github.com/livekit/livekit-server/pkg/routing"
	"github.com/livekit/livekit-server/pkg/service"
	"github.com/livekit/livekit-server/pkg/telemetry/prometheus"
	"github.com/livekit/protocol/logger"
	"go.yaml.in/yaml/v3"

	"passerelle/focus/sfu"
)

const (
	// stopTimeout is how long the goodbyes to all participants may take.
	stopTimeout = 5 * time.Second
	// goodbyes is how long LiveKit, once it says that it has stopped, is left
	// alone: what it had to tell the participants is still on its way through
	// goroutines that it does not wait for.
	goodbyes = 300 * time.Millisecond
)

// Main runs the SFU until a signal, or until nobody holds its leash for the
// orphan timeout. The settings come from stdin. The first signal tells the
// participants that it is over; the second ends at once. It returns the exit
// code.
func Main(stdin io.Reader, stderr io.Writer) int {
	// Our parent reads stderr, and may die.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	settings, err := sfu.ReadSettings(stdin)
	if err == nil {
		err = run(settings, signals)
	}
	if err != nil {
		fmt.Fprintf(stderr, "passerelle sfu: %v\n", err)
		return 1
	}
	return 0
}

func run(s sfu.Settings, signals <-chan os.Signal) error {
	control, err := sfu.NewControl(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); control.Serve(ctx) }()
	defer func() { cancel(); <-served }()

	logger.InitFromConfig(&logger.Config{JSON: true, Level: "warn"}, "livekit")
	server, err := newServer(s)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Start() }()
	if err := awaitRunning(server, ended, signals); err != nil {
		return err
	}
	control.Ready()
	select {
	case err := <-ended:
		return fmt.Errorf("LiveKit ended by itself: %w", errors.Join(err, errors.New("see the lines above")))
	case <-signals:
	case <-control.Orphaned():
	}
	return stop(server, ended, signals)
}

// newServer builds LiveKit and binds its media ports.
func newServer(s sfu.Settings) (*service.LivekitServer, error) {
	encoded, err := yaml.Marshal(document(s))
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

// noSTUN is told to clients when the operator lists no STUN server. An empty
// list would mean LiveKit's defaults, which are public servers of others; and
// the SFU's own port would not do, for a browser then takes its media for
// answers of a STUN server.
const noSTUN = "127.0.0.1:9"

// document is LiveKit's configuration. Everything that would make it look for
// its own address, or tell clients to, is set.
func document(s sfu.Settings) map[string]any {
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
	if s.Loopback {
		rtc["enable_loopback_candidate"] = true
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
	return d
}

// awaitRunning returns once LiveKit answers. It would lose a stop that came
// before.
func awaitRunning(server *service.LivekitServer, ended <-chan error, signals <-chan os.Signal) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !server.IsRunning() {
		select {
		case <-poll.C:
		case err := <-ended:
			return fmt.Errorf("LiveKit did not start: %w", err)
		case <-signals:
			return errors.New("stopped while it started")
		}
	}
	return nil
}

// stop says goodbye to the participants and ends.
func stop(server *service.LivekitServer, ended <-chan error, signals <-chan os.Signal) error {
	go server.Stop(true)
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	select {
	case <-ended:
		time.Sleep(goodbyes)
		return nil
	case <-deadline.C:
		return errors.New("LiveKit did not stop in time")
	case <-signals:
		return errors.New("stopped at once by a second signal")
	}
}

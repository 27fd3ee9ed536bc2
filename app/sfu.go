package app

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"passerelle/config"
	"passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
	"passerelle/focus/sfu"
)

// sfuServer is the SFU, whether we run it or somebody else does.
type sfuServer interface {
	// WaitReady returns nil once the SFU can take participants.
	WaitReady(ctx context.Context) error
	// APIURL is where its room service and signalling are, http or https.
	APIURL() *url.URL
	// Key is the API key that we share with it.
	Key() (id string, secret config.Secret)
	// Run keeps it running until ctx is done, then stops it.
	Run(ctx context.Context) error
}

// sfuEntry is one SFU of this process: where it is, and the key that it knows.
type sfuEntry struct {
	server sfuServer
	tokens *livekit.Tokens
}

// newSFU returns the child process or the external SFU of the configuration.
func (a *App) newSFU(c *config.Config) (sfuServer, error) {
	if c.LiveKit.Mode == "external" {
		return newExternalSFU(c.LiveKit)
	}
	_, port, err := net.SplitHostPort(a.privateListener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("address of the private listener: %w", err)
	}
	host, _, err := net.SplitHostPort(c.Server.PrivateListen)
	if err != nil || host == "" || net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return sfu.New(sfu.Options{
		Config:      c.LiveKit.Embedded,
		DataDir:     c.Server.DataDir,
		WebhookURL:  "http://" + net.JoinHostPort(host, port) + webhookPath,
		StopTimeout: c.Server.StopTimeout / 2,
		Log:         a.log.With().Str("component", "sfu").Logger(),
		Registerer:  a.registry,
		OnReady:     a.sfuReady,
	})
}

// sfuReady is told each time a child can take participants. A fresh one knows
// neither rooms nor participants: the door has each room made again when its
// first participant comes back.
func (a *App) sfuReady(ctx context.Context, fresh bool) error {
	a.leaves.SFUReady(fresh)
	if !fresh {
		return nil
	}
	return a.focus.SFURestarted(ctx)
}

// restartWait is how long a token request waits for an SFU that is being
// restarted, which takes a fraction of a second.
const restartWait = 5 * time.Second

// patientRooms is the room service that makes rooms as soon as the SFU is there
// to make them.
type patientRooms struct {
	sfu sfuServer
	*livekit.Rooms
}

// EnsureRoom implements [focus.SFU]. An SFU that dies while it is asked is asked
// once more when it is back: making a room twice is making it once.
func (p patientRooms) EnsureRoom(ctx context.Context, room matrixrtc.SFURoom, o matrixrtc.RoomOptions) error {
	ctx, cancel := context.WithTimeout(ctx, restartWait)
	defer cancel()
	for again := true; ; again = false {
		if err := p.sfu.WaitReady(ctx); err != nil {
			return err
		}
		err := p.Rooms.EnsureRoom(ctx, room, o)
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		// The supervisor learns of a death a moment after the kernel does.
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// externalSFU is a LiveKit that somebody else runs.
type externalSFU struct {
	url    *url.URL
	key    string
	secret config.Secret
}

func newExternalSFU(c config.LiveKit) (*externalSFU, error) {
	address, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("livekit.url: %w", err)
	}
	switch address.Scheme {
	case "ws":
		address.Scheme = "http"
	case "wss":
		address.Scheme = "https"
	}
	return &externalSFU{url: address, key: c.Key, secret: c.Secret}, nil
}

func (e *externalSFU) WaitReady(context.Context) error { return nil }

func (e *externalSFU) APIURL() *url.URL { return e.url }

func (e *externalSFU) Key() (string, config.Secret) { return e.key, e.secret }

func (e *externalSFU) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

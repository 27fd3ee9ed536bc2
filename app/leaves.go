package app

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus/leave"
	"passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
)

// homeservers finds client-server APIs: where the configuration says that they
// are, or where the servers do.
type homeservers struct {
	known  map[string]leave.API // by server name
	others *federation.ClientAPIs
	// own is our own homeserver, or empty, and token what it knows us by.
	// Strangers' leaves are managed without one, as that is what their
	// homeservers let everybody do.
	own   string
	token config.Secret
}

func newHomeservers(c config.Homeserver, others *federation.ClientAPIs) (*homeservers, error) {
	h := &homeservers{known: map[string]leave.API{}, others: others, own: c.ServerName, token: c.ASToken}
	if c.ServerName == "" {
		return h, nil
	}
	base, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("homeserver.url: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxIdleConnsPerHost = 16
	h.known[c.ServerName] = leave.API{URL: base, Client: &http.Client{
		Transport: transport,
		// A redirect would carry the token to whoever it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return h, nil
}

// API implements leave.Homeservers.
func (h *homeservers) API(ctx context.Context, server string) (leave.API, error) {
	api, ok := h.known[server]
	if !ok {
		base, err := h.others.Find(ctx, server)
		if err != nil {
			return leave.API{}, err
		}
		api = leave.API{URL: base, Client: h.others.Client()}
	}
	if server == h.own {
		api.Token = h.token
	}
	return api, nil
}

// Own implements leave.Homeservers.
func (h *homeservers) Own() (leave.API, bool) {
	api, ok := h.known[h.own]
	api.Token = h.token
	return api, ok
}

func (h *homeservers) close() {
	h.others.Close()
	for _, api := range h.known {
		api.Client.CloseIdleConnections()
	}
}

// patientLooks looks for participants once the SFU is there: one that is being
// restarted knows nobody.
type patientLooks struct {
	sfu   sfuServer
	rooms *livekit.Rooms
}

// Participant implements leave.SFU.
func (p patientLooks) Participant(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (matrixrtc.Participant, bool, error) {
	waiting, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := p.sfu.WaitReady(waiting); err != nil {
		return matrixrtc.Participant{}, false, err
	}
	return p.rooms.Participant(ctx, room, who)
}

func (a *App) buildLeaves(_ context.Context, c *config.Config) error {
	others, err := federation.NewClientAPIs(federation.Options{Config: c.Federation, Policy: a.policy})
	if err != nil {
		return err
	}
	servers, err := newHomeservers(c.Homeserver, others)
	if err != nil {
		return err
	}
	a.life.onStop("client APIs", func(context.Context) error { servers.close(); return nil })
	a.leaves, err = leave.New(leave.Options{
		Store:       leave.NewStore(a.synced),
		Homeservers: servers,
		SFU:         patientLooks{a.sfu, a.rooms},
		Log:         a.log.With().Str("component", "leaves").Logger(),
		Registerer:  a.registry,
	})
	return err
}

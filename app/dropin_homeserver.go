package app

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus"
	"passerelle/focus/homeserver"
	"passerelle/focus/leave"
)

// isMatrix tells the routes that a homeserver hands over from those of clients.
func isMatrix(asked string) bool { return strings.HasPrefix(asked, "/_matrix/") }

// newDropInServers: the operator may say where servers are.
func newDropInServers(c *config.Config, others *federation.ClientAPIs) (*dropInServers, error) {
	s := &dropInServers{&homeservers{
		known: map[string]leave.API{}, others: others, own: c.Homeserver.ServerName, token: c.Homeserver.ASToken,
	}}
	for name, address := range c.DropIn.ClientAPIs {
		base, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("LIVEKIT_CS_API_URL_OVERRIDES: %w", err)
		}
		s.known[name] = leave.API{URL: base, Client: others.Client()}
	}
	return s, nil
}

// dropInServers are homeservers of which none is asked what it can do.
type dropInServers struct{ *homeservers }

// Own implements leave.Homeservers. Whatever a homeserver can do, leaves are
// taken over here: clients of an lk-jwt-service rely on that.
func (s *dropInServers) Own() (leave.API, bool) { return leave.API{}, false }

// dropInMembers is nil where nobody can be asked.
func (a *App) dropInMembers(c *config.Config) focus.Members {
	if c.Focus.Membership != "required" {
		return nil
	}
	m := &lateMembers{
		servers: a.dropInServers, log: a.log.With().Str("component", "homeserver").Logger(), registerer: a.registry,
	}
	a.life.onStop("homeserver", func(context.Context) error { m.close(); return nil })
	return m
}

// lateMembers asks the homeserver at which there is a registration, once it is
// known where that is: a drop-in starts whatever homeservers do.
type lateMembers struct {
	servers    *dropInServers
	log        zerolog.Logger
	registerer prometheus.Registerer

	mu     sync.Mutex
	client *homeserver.Client
	found  *homeserver.Membership
}

func (m *lateMembers) find(ctx context.Context) (*homeserver.Membership, error) {
	m.mu.Lock()
	found := m.found
	m.mu.Unlock()
	if found != nil {
		return found, nil
	}
	api, err := m.servers.API(ctx, m.servers.own)
	if err != nil {
		return nil, fmt.Errorf("find the client API of our homeserver: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.found == nil {
		m.client = homeserver.NewClient(homeserver.Options{
			URL: api.URL.String(), Token: m.servers.token.Reveal(), Transport: api.Client.Transport, Registerer: m.registerer,
		})
		m.found = homeserver.NewMembership(m.client, m.servers.own, m.log)
	}
	return m.found, nil
}

func (m *lateMembers) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		m.client.Close()
	}
}

// Joined implements focus.Members.
func (m *lateMembers) Joined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	members, err := m.find(ctx)
	if err != nil {
		return false, err
	}
	return members.Joined(ctx, room, user)
}

// Still implements focus.Members.
func (m *lateMembers) Still(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	members, err := m.find(ctx)
	if err != nil {
		return false, err
	}
	return members.Still(ctx, room, user)
}

// Confirm implements focus.Members.
func (m *lateMembers) Confirm(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	members, err := m.find(ctx)
	if err != nil {
		return false, err
	}
	return members.Confirm(ctx, room, user)
}

// Present implements focus.Members.
func (m *lateMembers) Present(ctx context.Context, room id.RoomID, server string) (bool, error) {
	members, err := m.find(ctx)
	if err != nil {
		return false, err
	}
	return members.Present(ctx, room, server)
}

// Here implements focus.Members.
func (m *lateMembers) Here(ctx context.Context, room id.RoomID) (bool, error) {
	members, err := m.find(ctx)
	if err != nil {
		return false, err
	}
	return members.Here(ctx, room)
}

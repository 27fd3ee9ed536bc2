package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/parts"
	"passerelle/demo/synapse"
)

const (
	// Each of them asks for each room once in a round, some hundred times in all.
	synapseUsers, synapseRooms, synapseRounds = 20, 5, 4
	// believed is for how long Passerelle believes that somebody is in a room.
	believed = 5 * time.Second
)

// realHome is a real Synapse that hands over to a Passerelle what it is asked
// for calls.
type realHome struct {
	server  *synapse.Server
	process process
	ours    *process
	users   []*synapse.User
	rooms   []id.RoomID
	client  *http.Client
}

// measureSynapse prints what a token through a real Synapse costs that, beside
// what it costs us; where there is none it says so.
func (b *bench) measureSynapse(ctx context.Context, ours float64) error {
	store, err := parts.Open(os.Stdout, false)
	if err != nil {
		return err
	}
	python, err := store.Synapse(ctx)
	if errors.Is(err, parts.ErrMissing) {
		fmt.Printf("What it costs the homeserver was not measured: %v\n", err)
		return nil
	} else if err != nil {
		return err
	}
	h, err := b.startSynapse(ctx, python)
	if h != nil {
		defer h.stop()
	}
	if err != nil {
		return err
	}
	token, err := h.measure(ctx, h.askToken)
	if err != nil {
		return err
	}
	question, err := h.measure(ctx, h.askJoined)
	if err != nil {
		return err
	}
	fmt.Printf("A real Synapse itself needs %.2f ms of processor for each, %.2f of them for our question whether the user is in the room: %.0f times what we need\n",
		token, question, token/ours)
	return nil
}

func (b *bench) startSynapse(ctx context.Context, python string) (*realHome, error) {
	dir := filepath.Join(b.dir, "synapse")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	authority, err := synapse.NewAuthority(b.dir)
	if err != nil {
		return nil, err
	}
	client, federation, err := freePorts()
	if err != nil {
		return nil, err
	}
	public, private, err := freePorts()
	if err != nil {
		return nil, err
	}
	proxied, _, err := freePorts()
	if err != nil {
		return nil, err
	}
	h := &realHome{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: proxiedAimAt}}}
	h.server, err = synapse.Start(ctx, synapse.Options{
		Python: python, Dir: dir, Address: "127.0.0.1", ClientPort: port(client), FederationPort: port(federation), Authority: authority,
		Registrations: []map[string]any{{
			"id": "focus", "url": nil, "as_token": asToken, "hs_token": hsToken, "sender_localpart": "_focus",
			"rate_limited": false, "namespaces": map[string]any{},
			"io.element.msc4502.scopes":       []string{"urn:matrix:client:io.element.msc4502:rooms:is_joined"},
			"io.element.msc4512.proxy_prefix": "rtc/livekit", "io.element.msc4512.proxy_url": "http://" + proxied,
		}},
	})
	if err != nil {
		return nil, err
	}
	h.process.pid = h.server.PID()
	h.ours, err = startAt(ctx, b.binary, filepath.Join(b.dir, "beside-synapse"), home{h.server.Name, h.server.ClientURL, authority.File},
		b.world.livekit(), public, private, proxied)
	if err != nil {
		return h, err
	}
	return h, h.settle(ctx)
}

func port(address string) int {
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port) // it is one that was free
	return n
}

// settle makes users and rooms, and has everybody in all of them.
func (h *realHome) settle(ctx context.Context) error {
	for i := range synapseUsers {
		user, err := h.server.Register(ctx, "u"+strconv.Itoa(i), "")
		if err != nil {
			return err
		}
		user.Client.Client = h.client
		h.users = append(h.users, user)
	}
	for i := range synapseRooms {
		room, err := h.users[0].CreateOpenCallRoom(ctx, "r"+strconv.Itoa(i))
		if err != nil {
			return err
		}
		h.rooms = append(h.rooms, room)
		for _, user := range h.users[1:] {
			if err := user.JoinInvited(ctx, room, h.server.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure is the processor time that Synapse needs for one request, in
// milliseconds: the median of some rounds, in each of which every user asks for
// every room.
func (h *realHome) measure(ctx context.Context, ask func(ctx context.Context, user *synapse.User, room id.RoomID) error) (float64, error) {
	var each []float64
	for range synapseRounds + 1 {
		select {
		case <-time.After(believed):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		before, err := h.process.cpu()
		if err != nil {
			return 0, err
		}
		var asking errgroup.Group
		asking.SetLimit(proxiedAimAt)
		for _, room := range h.rooms {
			for _, user := range h.users {
				asking.Go(func() error { return ask(ctx, user, room) })
			}
		}
		if err := asking.Wait(); err != nil {
			return 0, err
		}
		after, err := h.process.cpu()
		if err != nil {
			return 0, err
		}
		each = append(each, (after-before).Seconds()*1000/(synapseUsers*synapseRooms))
	}
	each = each[1:] // the first one made connections
	slices.Sort(each)
	return each[len(each)/2], nil
}

// askToken asks Synapse as a client does.
func (h *realHome) askToken(ctx context.Context, user *synapse.User, room id.RoomID) error {
	_, err := answer(ctx, h.client, h.server.ClientURL+proxiedRoute, proxiedBody(h.ours, string(room)), bearer(user.AccessToken))
	return err
}

// askJoined asks Synapse what Passerelle asks it.
func (h *realHome) askJoined(ctx context.Context, user *synapse.User, room id.RoomID) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.server.ClientURL+isJoined(string(room), string(user.UserID)), nil)
	if err != nil {
		return err
	}
	request.Header = bearer(asToken)
	_, err = do(h.client, request)
	return err
}

func bearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
}

func (h *realHome) stop() {
	if h.ours != nil {
		h.ours.stop()
	}
	h.client.CloseIdleConnections()
	_ = h.server.Stop()
}

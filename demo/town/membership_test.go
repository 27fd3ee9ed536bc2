package town_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// forgotten is after how long a Passerelle has to ask its homeserver again: a
// yes counts for five seconds there, and nothing tells when they are over.
const forgotten = 6 * time.Second

// state is one way not to be joined, or to be.
type state struct {
	name string
	// live: the user was joined before, and got a token then.
	live bool
	// enter makes it so before the first tokens are asked for, after the second
	// time.
	enter func(s *scene, user *synapse.User)
	after func(s *scene, user *synapse.User)
}

// scene is a room of Intérieur with Agnès as its moderator.
type scene struct {
	t    testing.TB
	town *town.Town
	room id.RoomID
}

func (s *scene) moderator() *synapse.User { return s.town.Interieur.User }

func (s *scene) invite(user *synapse.User) {
	// Who has just left another server's room may still be in ours.
	require.Eventually(s.t, func() bool {
		_, err := s.moderator().InviteUser(s.t.Context(), s.room, &mautrix.ReqInviteUser{UserID: user.UserID})
		return err == nil
	}, 10*time.Second, 100*time.Millisecond)
}

func (s *scene) join(user *synapse.User) {
	s.invite(user)
	// A leave and a join right after it may meet on their way between servers.
	require.Eventually(s.t, func() bool {
		return user.JoinInvited(s.t.Context(), s.room, s.town.Interieur.Homeserver.Name) == nil
	}, 30*time.Second, 200*time.Millisecond)
}

func (s *scene) leave(user *synapse.User) {
	do(s.t, user, http.MethodPost, map[string]any{}, "rooms", s.room, "leave")
}

func (s *scene) moderate(how string) func(*scene, *synapse.User) {
	return func(s *scene, user *synapse.User) {
		do(s.t, s.moderator(), http.MethodPost, map[string]any{"user_id": user.UserID}, "rooms", s.room, how)
	}
}

func (s *scene) knock(user *synapse.User) {
	address := user.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "knock", s.room}, map[string]string{"server_name": s.town.Interieur.Homeserver.Name, "via": s.town.Interieur.Homeserver.Name})
	_, err := user.MakeRequest(s.t.Context(), http.MethodPost, address, struct{}{}, nil)
	require.NoError(s.t, err)
}

func states() []state {
	return []state{
		{"joined", false, (*scene).join, nil},
		{"still joined", true, (*scene).join, nil},
		{"left", true, (*scene).join, (*scene).leave},
		{"kicked", true, (*scene).join, (*scene)(nil).moderate("kick")},
		{"banned", true, (*scene).join, (*scene)(nil).moderate("ban")},
		{"invited", false, (*scene).invite, nil},
		{"knocking", false, (*scene).knock, nil},
		{"never", false, func(*scene, *synapse.User) {}, nil},
		{"back again", true, (*scene).join, func(s *scene, user *synapse.User) { s.leave(user); s.join(user) }},
	}
}

// cell is one user on one way in one state.
type cell struct {
	way   way
	state state
	user  *synapse.User
}

func (c cell) String() string { return c.way.name + ", " + c.state.name + " " + string(c.user.UserID) }

// cells are all states on all ways, each with a user of its own.
func cells(t *testing.T, w *town.Town) (all []cell) {
	t.Helper()
	for i, v := range ways() {
		for j, st := range states() {
			for _, side := range []struct {
				on       bool
				ministry *town.Ministry
			}{{v.local, w.Interieur}, {v.remote, w.Finances}} {
				if side.on {
					all = append(all, cell{v, st, account(t, side.ministry, fmt.Sprintf("u%d-%d", i, j))})
				}
			}
		}
	}
	return all
}

// enter brings all into their states.
func (s *scene) enter(t *testing.T, all []cell) {
	t.Helper()
	for _, c := range all {
		c.state.enter(s, c.user)
	}
	for _, c := range all {
		if c.state.live {
			c.way.ask(t, s.town, c.user, s.room).jwt(t)
		}
	}
	for _, c := range all {
		if c.state.after != nil {
			c.state.after(s, c.user)
		}
	}
	time.Sleep(forgotten)
}

// clerk holds refusals against each other.
type clerk struct {
	t      *testing.T
	town   *town.Town
	body   string
	header map[string]http.Header // by way
}

// refused asks, and has the answer be the one that all get, after as many
// questions to the homeservers as any.
func (k *clerk) refused(name string, v way, user *synapse.User, room id.RoomID) {
	k.t.Helper()
	ask := v.ready(k.t, k.town, user, room)
	here, there := asked(k.t, k.town.Interieur), asked(k.t, k.town.Finances)
	got := ask()
	here, there = asked(k.t, k.town.Interieur)-here, asked(k.t, k.town.Finances)-there
	require.Equal(k.t, http.StatusForbidden, got.Status, "%s: %s", name, got.Body)
	if k.body == "" {
		require.Contains(k.t, got.Body, "M_FORBIDDEN")
		k.body = got.Body
	}
	require.Equal(k.t, k.body, got.Body, name)
	if k.header[v.name] == nil {
		k.header[v.name] = got.Header
	}
	require.Equal(k.t, k.header[v.name], got.Header, name)
	switch remote := user.HomeserverURL.Host == k.town.Finances.User.HomeserverURL.Host; {
	case v.name == "relayed":
		require.EqualValues(k.t, []float64{0, 1}, []float64{here, there}, "%s: the user's own server says it", name)
	case remote:
		require.InDelta(k.t, 6, here, 3, "%s: a join may be on its way", name)
	default:
		require.EqualValues(k.t, 1, here, name)
	}
}

// asked is how often a Passerelle asked its homeserver, whatever the answer.
func asked(t *testing.T, m *town.Ministry) (n float64) {
	t.Helper()
	for _, question := range []string{"is_joined", "joined_members"} {
		for _, outcome := range []string{"answered", "refused", "failed"} {
			n += metric(t, m, `passerelle_homeserver_questions_total{outcome="`+outcome+`",question="`+question+`"}`)
		}
	}
	return n
}

// TestMembership holds every route that gives tokens against every way to be
// in a room and not to be, with real homeservers: only the joined get a token,
// and all refusals are the same, also of those who hand a leave over.
func TestMembership(t *testing.T) {
	w, binary := newTown(t)
	checked(t, binary, w.Interieur.Config, "synapse", true)
	s := &scene{t, w, w.Room}
	remoteOnly, err := w.Finances.User.CreateCallRoom(t.Context(), "Finances seules", false)
	require.NoError(t, err)
	_, err = w.Interieur.User.SendStateEvent(t.Context(), s.room, event.StateJoinRules, "", map[string]string{"join_rule": "knock"})
	require.NoError(t, err)
	k := &clerk{t: t, town: w, header: map[string]http.Header{}}

	all := cells(t, w)
	s.enter(t, all)
	for _, c := range all {
		routes := []way{c.way}
		if c.way.name == "proxied" {
			routes = append(routes, handovers()...)
		}
		switch c.state.name {
		case "joined", "still joined", "back again":
			got := c.way.ask(t, w, c.user, s.room)
			require.Equal(t, http.StatusOK, got.Status, "%s: %s", c, got.Body)
		default:
			for _, v := range routes {
				k.refused(v.name+", "+c.String(), v, c.user, s.room)
			}
		}
		for what, room := range map[string]id.RoomID{
			"a room that there is not":              "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM",
			"a malformed room":                      "!r",
			"no room":                               "r",
			"a room that our server does not know":  remoteOnly,
			"the room with the server's name to it": s.room + id.RoomID(":"+w.Interieur.Homeserver.Name),
		} {
			for _, v := range routes {
				if c.state.name == "joined" {
					k.refused(v.name+", "+c.String()+": "+what, v, c.user, room)
				}
			}
		}
	}
	// Who is in the room, of a server that is not: the user's own server says
	// joined, ours does not know the room.
	for _, v := range ways() {
		if v.remote && v.name != "relayed" {
			k.refused(v.name+", only remote members", v, w.Finances.User, remoteOnly)
		}
	}
	// A homeserver speaks for its own users alone.
	got := federated(t, w, w.Interieur.User.UserID, s.room)
	require.Equal(t, http.StatusForbidden, got.Status, got.Body)
	k.silence(all, s.room)
}

// silence has the homeserver fall silent. Who cannot prove who they are get
// nothing, and of others those alone who hold a living grant.
func (k *clerk) silence(all []cell, room id.RoomID) {
	k.t.Helper()
	t, w := k.t, k.town
	standalone := ways()[1]
	var holder, stranger *synapse.User
	for _, c := range all {
		if c.way.name == standalone.name && c.user.HomeserverURL.Host == w.Finances.User.HomeserverURL.Host {
			switch c.state.name {
			case "joined":
				holder = c.user
			case "invited":
				stranger = c.user
			}
		}
	}
	time.Sleep(forgotten)
	require.NoError(t, w.Interieur.Homeserver.Stop())
	standalone.ask(t, w, holder, room).jwt(t)
	got := standalone.ask(t, w, stranger, room)
	require.Equal(t, http.StatusBadGateway, got.Status, got.Body)
	require.Contains(t, got.Body, "M_UNKNOWN")
	require.NoError(t, w.Interieur.Homeserver.Restart(t.Context()))
	standalone.ask(t, w, holder, room).jwt(t)
	k.refused("after the restart", standalone, stranger, room)
}

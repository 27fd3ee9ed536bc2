package town_test

import (
	"fmt"
	"net/http"
	"os/exec"
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

// TestMembership holds every route that gives tokens against every way to be
// in a room and not to be, with real homeservers: only the joined get a token,
// and all refusals are the same, and cost the homeservers the same questions.
func TestMembership(t *testing.T) {
	w, binary := newTown(t)
	said, err := exec.CommandContext(t.Context(), binary, "check", "-config", w.Interieur.Config).CombinedOutput()
	require.NoError(t, err, "%s", said)
	require.Contains(t, string(said), "the homeserver is set up for it")
	s := &scene{t, w, w.Room}
	remoteOnly, err := w.Finances.User.CreateCallRoom(t.Context(), "Finances seules", false)
	require.NoError(t, err)
	_, err = w.Interieur.User.SendStateEvent(t.Context(), s.room, event.StateJoinRules, "", map[string]string{"join_rule": "knock"})
	require.NoError(t, err)
	refusals := refusals{t: t, town: w, costs: map[string]cost{}}

	var cells []cell
	for i, v := range ways() {
		for j, st := range states() {
			for _, side := range []struct {
				on       bool
				ministry *town.Ministry
			}{{v.local, w.Interieur}, {v.remote, w.Finances}} {
				if side.on {
					cells = append(cells, cell{v, st, member(t, side.ministry, fmt.Sprintf("u%d-%d", i, j))})
				}
			}
		}
	}
	for _, c := range cells {
		c.state.enter(s, c.user)
	}
	for _, c := range cells {
		if c.state.live {
			c.way.ask(t, w, c.user, s.room).jwt(t)
		}
	}
	for _, c := range cells {
		if c.state.after != nil {
			c.state.after(s, c.user)
		}
	}
	time.Sleep(forgotten)
	for _, c := range cells {
		switch c.state.name {
		case "joined", "still joined", "back again":
			got := c.way.ask(t, w, c.user, s.room)
			require.Equal(t, http.StatusOK, got.Status, "%s, %s: %s", c.way.name, c.state.name, got.Body)
		default:
			refusals.require(c.state.name, c.way, c.user, s.room)
			if c.way.name == "standalone" && c.user.HomeserverURL.Host == w.Interieur.User.HomeserverURL.Host {
				for _, v := range handovers() {
					refusals.require(c.state.name, v, c.user, s.room)
				}
			}
		}
		for what, room := range map[string]id.RoomID{
			"a room that there is not":              "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM",
			"a malformed room":                      "!r",
			"no room":                               "r",
			"a room that our server does not know":  remoteOnly,
			"the room with the server's name to it": s.room + id.RoomID(":"+w.Interieur.Homeserver.Name),
		} {
			if c.state.name == "joined" {
				refusals.require(what, c.way, c.user, room)
			}
		}
	}
	// Who is in the room, of a server that is not: the user's own server says
	// joined, ours does not know the room.
	for _, v := range ways() {
		if v.remote {
			refusals.same("only remote members", v, v.ask(t, w, w.Finances.User, remoteOnly))
		}
	}
	// A homeserver speaks for its own users alone.
	got := federated(t, w, w.Interieur.User.UserID, s.room)
	require.Equal(t, http.StatusForbidden, got.Status, got.Body)

	// The homeserver falls silent. Who cannot prove who they are get nothing, and
	// of others those alone who hold a living grant.
	var holder, stranger *synapse.User
	for _, c := range cells {
		if c.way.name == "standalone" && c.way.remote && c.user.HomeserverURL.Host == w.Finances.User.HomeserverURL.Host {
			switch c.state.name {
			case "joined":
				holder = c.user
			case "invited":
				stranger = c.user
			}
		}
	}
	standalone := ways()[1]
	time.Sleep(forgotten)
	require.NoError(t, w.Interieur.Homeserver.Stop())
	standalone.ask(t, w, holder, s.room).jwt(t)
	got = standalone.ask(t, w, stranger, s.room)
	require.Equal(t, http.StatusBadGateway, got.Status, got.Body)
	require.Contains(t, got.Body, "M_UNKNOWN")
	require.NoError(t, w.Interieur.Homeserver.Restart(t.Context()))
	standalone.ask(t, w, holder, s.room).jwt(t)
	refusals.same("after the restart", standalone, standalone.ask(t, w, stranger, s.room))
}

package town_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

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
	t    *testing.T
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
	require.NoError(s.t, user.JoinInvited(s.t.Context(), s.room, s.town.Interieur.Homeserver.Name))
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
	do(s.t, user, http.MethodPost, map[string]any{}, "knock", fmt.Sprintf("%s?server_name=%s&via=%[2]s", s.room, s.town.Interieur.Homeserver.Name))
}

func states() []state {
	return []state{
		{"joined", false, (*scene).join, nil},
		{"still joined", true, (*scene).join, nil},
		{"left", true, (*scene).join, (*scene).leave},
		{"kicked", true, (*scene).join, (*scene)(nil).moderate("kick")},
		{"banned", true, (*scene).join, (*scene)(nil).moderate("ban")},
		{"invited", false, (*scene).invite, nil},
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
// and all refusals are the same.
func TestMembership(t *testing.T) {
	w := newTown(t)
	s := &scene{t, w, w.Room}
	remoteOnly, err := w.Finances.User.CreateCallRoom(t.Context(), "Finances seules", false)
	require.NoError(t, err)
	want := map[bool]string{}
	refused := func(name string, remote bool, got answer) {
		t.Helper()
		require.Equal(t, http.StatusForbidden, got.Status, "%s: %s", name, got.Body)
		if want[remote] == "" {
			require.Contains(t, got.Body, "M_FORBIDDEN")
			want[remote] = got.Body
		}
		require.Equal(t, want[remote], got.Body, name)
	}

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
	time.Sleep(6 * time.Second) // a yes counts for five
	for _, c := range cells {
		name := c.way.name + ", " + c.state.name + " " + string(c.user.UserID)
		got := c.way.ask(t, w, c.user, s.room)
		switch c.state.name {
		case "joined", "still joined", "back again":
			require.Equal(t, http.StatusOK, got.Status, "%s: %s", name, got.Body)
		default:
			refused(name, false, got)
		}
		for what, room := range map[string]id.RoomID{
			"a room that there is not":              "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM",
			"a malformed room":                      "!r",
			"a room that our server does not know":  remoteOnly,
			"the room with the server's name to it": s.room + id.RoomID(":"+w.Interieur.Homeserver.Name),
		} {
			if c.state.name == "joined" {
				refused(name+": "+what, false, c.way.ask(t, w, c.user, room))
			}
		}
	}
	// Who is in the room, of a server that is not: the user's own server says
	// joined, ours does not know the room.
	for _, v := range ways() {
		if v.remote {
			refused(v.name+", only remote members", false, v.ask(t, w, w.Finances.User, remoteOnly))
		}
	}
	// A homeserver speaks for its own users alone.
	got := federated(t, w, w.Interieur.User.UserID, s.room)
	require.Equal(t, http.StatusForbidden, got.Status, got.Body)
}

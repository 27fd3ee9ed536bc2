package synapse

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
	"maunium.net/go/mautrix/synapseadmin"
)

// User is one account, signed in on one device.
type User struct {
	*mautrix.Client
}

// Register makes an account and signs it in.
func (s *Server) Register(ctx context.Context, localpart, displayName string) (*User, error) {
	return RegisterAt(ctx, s.ClientURL, s.secret, localpart, displayName)
}

// RegisterAt makes an account at a homeserver that has that client API, takes
// registrations as Synapse's administrators make them, and shares the secret.
func RegisterAt(ctx context.Context, clientURL, secret, localpart, displayName string) (*User, error) {
	return register(ctx, clientURL, secret, synapseadmin.ReqSharedSecretRegister{
		Username: localpart, Password: secret, Displayname: displayName,
	})
}

// RegisterAdmin makes an account that administers the server.
func (s *Server) RegisterAdmin(ctx context.Context, localpart string) (*User, error) {
	return register(ctx, s.ClientURL, s.secret, synapseadmin.ReqSharedSecretRegister{
		Username: localpart, Password: s.secret, Admin: true,
	})
}

func register(ctx context.Context, clientURL, secret string, request synapseadmin.ReqSharedSecretRegister) (*User, error) {
	anonymous, err := mautrix.NewClient(clientURL, "", "")
	if err != nil {
		return nil, err
	}
	admin := synapseadmin.Client{Client: anonymous}
	account, err := admin.SharedSecretRegister(ctx, secret, request)
	if err != nil {
		return nil, fmt.Errorf("register %s on %s: %w", request.Username, clientURL, err)
	}
	client, err := mautrix.NewClient(clientURL, account.UserID, account.AccessToken)
	if err != nil {
		return nil, err
	}
	client.DeviceID = account.DeviceID
	return &User{client}, nil
}

// Unlimit frees one user of every limit, as only an administrator can. What
// others do, with a token or without, is limited as before.
func (u *User) Unlimit(ctx context.Context, user id.UserID) error {
	address := u.BuildURL(mautrix.SynapseAdminURLPath{"v1", "users", user, "override_ratelimit"})
	_, err := u.MakeRequest(ctx, http.MethodPost, address, map[string]int{"messages_per_second": 0, "burst_count": 0}, nil)
	if err != nil {
		return fmt.Errorf("free %s of limits: %w", user, err)
	}
	return nil
}

// Watcher signs the user in on one more device. Whoever follows a room beside
// the user's browser needs one: what is sent to a device, call keys among it,
// is handed to the first that asks.
func (s *Server) Watcher(ctx context.Context, user *User) (*User, error) {
	client, err := mautrix.NewClient(s.ClientURL, "", "")
	if err != nil {
		return nil, err
	}
	_, err = client.Login(ctx, &mautrix.ReqLogin{
		Type:             mautrix.AuthTypePassword,
		Identifier:       mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: user.UserID.String()},
		Password:         s.secret,
		StoreCredentials: true,
	})
	if err != nil {
		return nil, fmt.Errorf("sign in %s once more: %w", user.UserID, err)
	}
	return &User{client}, nil
}

// CreateCallRoom makes a room in which every member may call, and invites.
func (u *User) CreateCallRoom(ctx context.Context, name string, encrypted bool, invite ...id.UserID) (id.RoomID, error) {
	request := map[string]any{
		"name":   name,
		"preset": "private_chat",
		"invite": append([]id.UserID{}, invite...), // a list, also when empty
	}
	if encrypted {
		request["initial_state"] = []any{map[string]any{
			"type": "m.room.encryption", "state_key": "", "content": map[string]any{"algorithm": "m.megolm.v1.aes-sha2"},
		}}
	}
	return u.createCallRoom(ctx, request)
}

// CreateOpenCallRoom makes a room that every user of the server may join, to
// call in it.
func (u *User) CreateOpenCallRoom(ctx context.Context, name string) (id.RoomID, error) {
	return u.createCallRoom(ctx, map[string]any{"name": name, "preset": "public_chat"})
}

func (u *User) createCallRoom(ctx context.Context, request map[string]any) (id.RoomID, error) {
	// Being in a call is a state event, which members may not send by default.
	request["power_level_content_override"] = map[string]any{"events": map[string]int{
		callMember: 0,
		rtcMember:  0,
	}}
	var created mautrix.RespCreateRoom
	_, err := u.MakeRequest(ctx, http.MethodPost, u.BuildClientURL("v3", "createRoom"), request, &created)
	if err != nil {
		return "", fmt.Errorf("make a room: %w", err)
	}
	return created.RoomID, nil
}

// JoinInvited joins a room of another server. The invitation may be on its
// way still, so the inviting server is asked, too.
func (u *User) JoinInvited(ctx context.Context, room id.RoomID, via string) error {
	address := u.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "join", room}, map[string]string{"server_name": via, "via": via})
	_, err := u.MakeRequest(ctx, http.MethodPost, address, struct{}{}, nil)
	if err != nil {
		return fmt.Errorf("join the room: %w", err)
	}
	return nil
}

// displayedServer is the server part of a user ID: all after the first colon.
func displayedServer(user id.UserID) string {
	_, server, _ := strings.Cut(string(user), ":")
	return server
}

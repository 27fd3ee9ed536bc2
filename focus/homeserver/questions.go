package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

const (
	// clientAPI is where the client-server API begins.
	clientAPI = "/_matrix/client/"
	// maxServerName is the length of the longest server name, and
	// serverNameLetters is what stands in one (appendices, "Server name").
	maxServerName     = 255
	serverNameLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]"
)

// IsJoined asks whether the user, of whichever server, is joined to the room
// as the homeserver sees it (MSC4502). What it calls malformed is not joined.
// A homeserver that does not offer the question, or not to us, is asked for
// the room's members instead, which it tells only a service that has somebody
// in the room: of all others it keeps it to itself ([Refusal.Withheld]).
func (c *Client) IsJoined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error) {
	if !strings.HasPrefix(string(user), "@") {
		return false, nil
	}
	if !strings.HasPrefix(string(room), "!") {
		// No room is called so. That is said after the same questions as of any
		// other, so that the time tells nothing, and not where nobody answers.
		_, err := c.IsJoined(ctx, "!"+room, user)
		return false, err
	}
	joined, err := c.memberJoined(ctx, room, "mxid", string(user))
	if refused(err, http.StatusBadRequest, "M_MISSING_PARAM") {
		// The newest text of the proposal calls the parameter so.
		joined, err = c.memberJoined(ctx, room, "user_id", string(user))
	}
	if refused(err, http.StatusForbidden, "") || refused(err, http.StatusNotFound, "") {
		members, memberErr := c.joinedMembers(ctx, room)
		if memberErr != nil {
			// The first answer is for people to read: it is a refusal, and where the
			// second question has none, nothing was refused.
			return false, fmt.Errorf("%w (asked because of %s)", memberErr, err)
		}
		return slices.Contains(members, user), nil
	}
	return joined, err
}

// memberJoined is isJoined for a user, who is in no room that the homeserver
// calls malformed.
func (c *Client) memberJoined(ctx context.Context, room id.RoomID, parameter, user string) (bool, error) {
	joined, err := c.isJoined(ctx, room, parameter, user)
	if refused(err, http.StatusBadRequest, "M_INVALID_PARAM") {
		return false, nil
	}
	return joined, err
}

// ServerJoined asks whether anybody of the server is joined to the room
// (MSC4502). A homeserver that only says that it does not understand the
// question has not said no: a no ends the calls of everybody in the room.
func (c *Client) ServerJoined(ctx context.Context, room id.RoomID, server string) (bool, error) {
	return c.isJoined(ctx, room, "server_name", server)
}

func (c *Client) isJoined(ctx context.Context, room id.RoomID, parameter, value string) (bool, error) {
	if !strings.HasPrefix(string(room), "!") {
		return false, nil
	}
	var answer struct {
		Joined *bool `json:"joined"`
	}
	err := c.ask(ctx, question{
		name: "is_joined", method: http.MethodGet,
		path:  clientAPI + "unstable/io.element.msc4502/rooms/" + url.PathEscape(string(room)) + "/is_joined",
		query: url.Values{parameter: {value}},
	}, &answer)
	switch {
	case err != nil:
		return false, err
	case answer.Joined == nil:
		return false, errors.New("its answer does not say whether anybody is joined")
	}
	return *answer.Joined, nil
}

// joinedMembers lists who is joined to the room (client-server API,
// /joined_members).
func (c *Client) joinedMembers(ctx context.Context, room id.RoomID) ([]id.UserID, error) {
	if !strings.HasPrefix(string(room), "!") {
		return nil, nil
	}
	var answer struct {
		Joined map[id.UserID]struct{} `json:"joined"`
	}
	err := c.ask(ctx, question{
		name: "joined_members", method: http.MethodGet, limit: maxMembers,
		path: clientAPI + "v3/rooms/" + url.PathEscape(string(room)) + "/joined_members",
	}, &answer)
	if err == nil && answer.Joined == nil {
		err = errors.New("its answer has no list of members")
	}
	members := make([]id.UserID, 0, len(answer.Joined))
	for user := range answer.Joined {
		members = append(members, user)
	}
	return members, err
}

// ServerName asks who we are to the homeserver (GET /whoami), and so what it is
// called: the part of our user ID after the first colon.
func (c *Client) ServerName(ctx context.Context) (string, error) {
	var me struct {
		User string `json:"user_id"`
	}
	err := c.ask(ctx, question{name: "whoami", method: http.MethodGet, path: clientAPI + "v3/account/whoami"}, &me)
	if err != nil {
		return "", err
	}
	_, name, _ := strings.Cut(me.User, ":")
	if name == "" || len(name) > maxServerName || strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(serverNameLetters, r) }) {
		return "", errors.New("its answer does not say what it is called")
	}
	return name, nil
}

// Features asks which unstable features the homeserver says that it has
// (GET /versions).
func (c *Client) Features(ctx context.Context) (map[string]bool, error) {
	var answer struct {
		Versions []string        `json:"versions"`
		Unstable map[string]bool `json:"unstable_features"`
	}
	err := c.ask(ctx, question{name: "versions", method: http.MethodGet, path: clientAPI + "versions", open: true}, &answer)
	if err == nil && len(answer.Versions) == 0 {
		err = errors.New("its answer names no version of Matrix")
	}
	return answer.Unstable, err
}

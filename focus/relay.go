package focus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

const (
	// relayPath is where another homeserver hands a request to the service
	// beside it (MSC4195; the path that homeservers have today).
	relayPath = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"
	// relayTimeout bounds one relay. Synapse alone would try for 90 seconds.
	relayTimeout = 10 * time.Second
	// maxRelays bounds the relays under way, and maxPeerRelays those to one
	// server. They share our homeserver's connections with the questions who is
	// in a room, which must find some free.
	maxRelays     = 24
	maxPeerRelays = 8
	// presentPause is how long is waited before it is asked again whether anybody
	// of a server is in the room: the first of its users may be joining just now.
	// It doubles; the third answer decides, 0.6 s after the first.
	presentPause, maxPresentPause = 200 * time.Millisecond, 400 * time.Millisecond
	// maxJWT bounds the token of another service, in bytes.
	maxJWT = 16 << 10
	// maxReason bounds what another service says of a refusal, in bytes.
	maxReason = 512
)

// ErrNoRelay is returned by a [Remote] that has no way to other homeservers.
var ErrNoRelay = errors.New("our homeserver carries no requests to others")

var (
	errNoSFU       = mautrix.MInvalidParam.WithMessage("url is not the address of a media server")
	errUnknownPeer = mautrix.MInvalidParam.WithMessage("server_name is no server whose media servers are used here")
	// errNotThere is for the SFU of a server that has nobody in the room.
	errNotThere = mautrix.MForbidden.WithMessage("nobody of the server with that media server is in the room")
	// errNoFederation makes clients ask the other service themselves, by its
	// livekit_service_url.
	errNoFederation = mautrix.MNotFound.WithMessage("that server's service cannot be asked through the homeservers")
	// errNotRelayed: every failure at another server is this to a client (MSC4195).
	errNotRelayed = mautrix.RespError{
		ErrCode: "M_UNKNOWN", StatusCode: http.StatusBadGateway,
		Err: "the other server gave no token",
	}
)

// Remote reaches the services beside other homeservers.
type Remote interface {
	// Post has our homeserver send the body to the path of another one, and
	// returns that one's status and JSON. An error means that there was no
	// answer; it is [ErrNoRelay] when there never will be one.
	Post(ctx context.Context, server, path string, body any) (status int, content json.RawMessage, err error)
}

// relayBody is the body of get_token from one homeserver to another (MSC4195).
// Those of before August 2026 have member in place of member_id.
type relayBody struct {
	UserID   id.UserID    `json:"user_id"`
	URL      string       `json:"url"`
	RoomID   id.RoomID    `json:"room_id"`
	SlotID   string       `json:"slot_id"`
	MemberID string       `json:"member_id,omitempty"`
	Member   *relayMember `json:"member,omitempty"`
}

type relayMember struct {
	ID              string      `json:"id"`
	ClaimedUserID   id.UserID   `json:"claimed_user_id"`
	ClaimedDeviceID id.DeviceID `json:"claimed_device_id"`
}

func (r *tokenRequest) relayBody() relayBody {
	b := relayBody{UserID: r.vouched, URL: r.sfuURL, RoomID: r.slot.RoomID, SlotID: r.slot.SlotID}
	if r.deviceID == "" {
		b.MemberID = r.memberID
	} else {
		b.Member = &relayMember{ID: r.memberID, ClaimedUserID: r.vouched, ClaimedDeviceID: r.deviceID}
	}
	return b
}

// relay gets one of our own users a token for another server's SFU. The policy,
// the limits and the user's membership come before anything goes out; what the
// user may do there is the other service's to say.
func (s *Service) relay(ctx context.Context, r *tokenRequest) (string, error) {
	owners := s.relayOwners(r)
	switch {
	case !s.policy.Access(r.server()).Join:
		return "", mautrix.MForbidden.WithMessage("users of this server may not join calls here")
	case len(owners) == 0:
		return "", errUnknownPeer
	case !isTransport(r.sfuURL):
		return "", errNoSFU
	case s.remote == nil:
		return "", errNoFederation
	}
	if err := limited(s.limits.Server(r.server())); err != nil {
		return "", err
	}
	if err := limited(s.limits.User(r.vouched)); err != nil {
		return "", err
	}
	leave, ok := s.relays.enter(r.vouched, r.slot.RoomID, owners)
	if !ok {
		return "", limitError{busyWait}
	}
	defer leave()
	server, err := s.relayTo(ctx, r, owners)
	if err != nil {
		return "", err
	}
	done, ok := s.relays.begin(r.vouched, r.slot.RoomID, server)
	if !ok {
		return "", limitError{busyWait}
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	status, content, err := s.remote.Post(ctx, server, relayPath, r.relayBody())
	switch {
	case errors.Is(err, ErrNoRelay):
		return "", errNoFederation
	case err != nil:
		s.log.Debug().Err(err).Str("server", server).Msg("No token from another server")
		return "", errNotRelayed
	}
	return relayed(status, content)
}

// relayOwners are the servers that may have the SFU that is asked for: the one
// that the client names, or those that are known to be at its address. The SFU
// itself is never connected to.
func (s *Service) relayOwners(r *tokenRequest) []string {
	switch {
	case r.sfuServer == "" && s.owners == nil:
	case r.sfuServer == "":
		return slices.DeleteFunc(s.owners.Owners(r.sfuURL), func(server string) bool {
			return strings.EqualFold(server, s.serverName) // ours are all known
		})
	case s.policy.Access(r.sfuServer).Join:
		return []string{r.sfuServer}
	}
	return nil
}

// isTransport: what else stands in a url is none that a homeserver announces.
func isTransport(address string) bool {
	_, err := matrixrtc.ParseTransport(address)
	return err == nil
}

// relayTo is the server to ask, once it is known that the user is in the room,
// and somebody of that server too: no other server is told of the room, also
// where a client names it.
func (s *Service) relayTo(ctx context.Context, r *tokenRequest, owners []string) (string, error) {
	if !s.required() {
		return owners[0], nil
	}
	joined, err := s.joined(ctx, r.slot.RoomID, r.vouched)
	switch {
	case err != nil:
		return "", unknown(err)
	case !joined:
		return "", errNotJoined
	}
	for pause := presentPause; ; pause *= 2 {
		for _, server := range owners {
			present, err := s.members.Present(ctx, r.slot.RoomID, server)
			switch {
			case err != nil:
				return "", unknown(err)
			case present:
				return server, nil
			}
		}
		if pause > maxPresentPause {
			return "", errNotThere
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return "", unknown(ctx.Err())
		}
	}
}

// relayed reads what the other service has answered. The codes that pass are a
// closed set.
func relayed(status int, content json.RawMessage) (string, error) {
	var answer struct {
		JWT   string `json:"jwt"`
		Code  string `json:"errcode"`
		Error string `json:"error"`
	}
	unreadable := matrixrtc.TooDeep(content) || json.Unmarshal(content, &answer) != nil
	switch {
	case status == http.StatusNotFound && (answer.Code == "" || answer.Code == "M_UNRECOGNIZED"):
		// Nobody there serves the path: neither the homeserver nor, with a page of
		// its own in place of a code, what stands in front of it.
		return "", errNoFederation
	case unreadable:
		return "", errNotRelayed
	}
	if len(answer.Error) > maxReason || strings.ContainsFunc(answer.Error, unicode.IsControl) {
		answer.Error = "the other server refuses"
	}
	if status == http.StatusOK && answer.JWT != "" && len(answer.JWT) <= maxJWT {
		return answer.JWT, nil
	}
	switch fmt.Sprint(status, " ", answer.Code) {
	case "403 M_FORBIDDEN", "403 M_LIMIT_EXCEEDED",
		"400 M_INVALID_PARAM", "400 M_MISSING_PARAM", "400 M_BAD_JSON", "400 M_NOT_JSON":
		return "", mautrix.RespError{ErrCode: answer.Code, StatusCode: status, Err: answer.Error}
	}
	return "", errNotRelayed
}

// relays are the requests to other servers under way, and those of which it is
// not known yet to whom they go.
type relays struct {
	mu      sync.Mutex
	entered map[relayKey]struct{} // by those who may be asked
	of      map[string]int        // by the server that is asked, without zeros
	under   map[relayKey]struct{}
}

// relayKey: of one user one request for a room is under way to a server at a time.
type relayKey struct {
	user   id.UserID
	room   id.RoomID
	server string
}

func newRelays() *relays {
	return &relays{entered: map[relayKey]struct{}{}, of: map[string]int{}, under: map[relayKey]struct{}{}}
}

// enter admits a relay to one of those servers before our homeserver is asked
// anything for it, or refuses it, also a second one of the same user: while it is
// waited for whether anybody is there, one user would have the places of all. By
// the servers, since many addresses may be of one. At its end leave is called.
func (l *relays) enter(user id.UserID, room id.RoomID, owners []string) (leave func(), ok bool) {
	key := relayKey{user, room, strings.ToLower(strings.Join(slices.Sorted(slices.Values(owners)), "\n"))}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.entered[key]; twice || len(l.entered) >= maxRelays {
		return nil, false
	}
	l.entered[key] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.entered, key)
	}, true
}

// begin admits the request of one that has entered to the server that is asked,
// which may be one for which the same user has asked in another way, or refuses it.
// At its end done is called.
func (l *relays) begin(user id.UserID, room id.RoomID, server string) (done func(), ok bool) {
	server = strings.ToLower(server)
	key := relayKey{user, room, server}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, twice := l.under[key]; twice || l.of[server] >= maxPeerRelays {
		return nil, false
	}
	l.of[server]++
	l.under[key] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.under, key)
		if l.of[server]--; l.of[server] == 0 {
			delete(l.of, server)
		}
	}, true
}

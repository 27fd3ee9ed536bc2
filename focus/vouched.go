package focus

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

var (
	errOtherSFU = mautrix.MInvalidParam.WithMessage("url is not the address of a media server of this service")
	// errForeignUser is for a homeserver that speaks for users who are not its
	// own.
	errForeignUser = mautrix.MForbidden.WithMessage("the user is not one of the homeserver that asks")
)

// vouchedBody is the body of get_token as the homeserver hands it over: of a
// client (MSC4195, /_matrix/client/v1/rtc/livekit/get_token) or of another
// homeserver, then with user_id. Clients of before August 2026 send member in
// place of member_id.
type vouchedBody struct {
	ServerName string    `json:"server_name"`
	UserID     id.UserID `json:"user_id"`
	URL        string    `json:"url"`
	RoomID     string    `json:"room_id"`
	SlotID     string    `json:"slot_id"`
	MemberID   string    `json:"member_id"`
	Member     struct {
		ID              string    `json:"id"`
		ClaimedUserID   id.UserID `json:"claimed_user_id"`
		ClaimedDeviceID string    `json:"claimed_device_id"`
	} `json:"member"`
}

// vouchedAnswer is the body of a granted request (MSC4195).
type vouchedAnswer struct {
	JWT string `json:"jwt"`
}

// ServeVouched answers a get_token for which the homeserver vouches, or which
// another one has signed. Every
// answer is a JSON object, and none is 401: it would look to a client as if its
// own session had ended.
//
//	200 {jwt}            the token
//	400 M_NOT_JSON       not JSON, or a field of the wrong type
//	400 M_BAD_JSON       a field is missing, empty or impossible
//	400 M_INVALID_PARAM  url is not our SFU nor that of a server of the policy, or
//	                     server_name is none
//	403 M_FORBIDDEN      policy, membership, or a user of another server
//	404 M_NOT_FOUND      the other server's service is not reached through homeservers
//	413 M_TOO_LARGE      more than 32 KiB
//	429 M_LIMIT_EXCEEDED to our users; to other servers 403, since their
//	                     homeservers repeat what they were told to put off
//	502 M_UNKNOWN        another server, the homeserver, the SFU or the database is not available
func (s *Service) ServeVouched(w http.ResponseWriter, r *http.Request, caller matrixrtc.Caller) {
	started := time.Now()
	way := routeProxied
	if caller.Origin != "" {
		way = routeFederated
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	request, err := s.decodeVouched(r.Body, caller, way)
	var token string
	switch {
	case err != nil:
	case s.isRelayed(request):
		way = routeRelayed
		token, err = s.relay(r.Context(), request)
	default:
		token, err = s.authorise(r.Context(), request)
	}
	s.metrics.answered(way, err, time.Since(started))
	if err != nil {
		writeError(w, s.vouchedError(way, err))
		return
	}
	writeJSON(w, http.StatusOK, vouchedAnswer{JWT: token})
}

// isRelayed tells requests for other servers' SFUs from those for ours, and from
// those for an SFU of which nothing is known.
func (s *Service) isRelayed(r *tokenRequest) bool {
	return r.sfuServer != "" || r.route == routeProxied && !s.isOurs(r.sfuURL) && len(s.relayOwners(r)) > 0
}

// vouchedError is publicError with the statuses that travel well through
// homeservers.
func (s *Service) vouchedError(way route, err error) error {
	if _, ok := errors.AsType[limitError](err); ok && way == routeFederated {
		return mautrix.RespError{ErrCode: "M_LIMIT_EXCEEDED", StatusCode: http.StatusForbidden, Err: "too many requests; come back later"}
	}
	err = s.publicError(err)
	if known, ok := errors.AsType[mautrix.RespError](err); ok && known.StatusCode == http.StatusInternalServerError {
		known.StatusCode = http.StatusBadGateway
		return known
	}
	return err
}

// decodeVouched reads a body and holds it against who the homeserver says has
// sent it.
func (s *Service) decodeVouched(body io.Reader, caller matrixrtc.Caller, way route) (*tokenRequest, error) {
	var b vouchedLeaveBody
	var into any = &b.vouchedBody
	if way == routeProxiedDelegate {
		into = &b
	}
	if err := decode(body, into); err != nil {
		return nil, err
	}
	older := b.MemberID == "" && b.Member.ID != ""
	err := checkFields(
		field{"server_name", b.ServerName, false},
		field{"user_id", string(b.UserID), caller.Origin != ""},
		field{"url", b.URL, true},
		field{"room_id", b.RoomID, true},
		field{"slot_id", b.SlotID, true},
		field{"member_id", b.MemberID, !older},
		field{"member.id", b.Member.ID, false},
		field{"member.claimed_user_id", string(b.Member.ClaimedUserID), false},
		field{"member.claimed_device_id", b.Member.ClaimedDeviceID, older},
		field{"delay_id", b.DelayID.Reveal(), way == routeProxiedDelegate},
	)
	if err != nil {
		return nil, err
	}
	r := &tokenRequest{
		route: way, vouched: caller.User, sfuURL: b.URL, sfuServer: b.ServerName,
		slot:     matrixrtc.SlotKey{RoomID: id.RoomID(b.RoomID), SlotID: b.SlotID},
		memberID: b.MemberID,
	}
	server := s.serverName
	if caller.Origin != "" {
		r.vouched, r.sfuServer = b.UserID, ""
		server = caller.Origin
	}
	if older {
		r.memberID, r.deviceID = b.Member.ID, id.DeviceID(b.Member.ClaimedDeviceID)
	}
	if way == routeProxiedDelegate {
		if err := b.checkLeave(); err != nil {
			return nil, err
		}
		r.delay = b.delayFields
	}
	switch {
	case !strings.HasPrefix(string(r.vouched), "@") || r.server() != server || server == "",
		way == routeProxiedDelegate && caller.User == "":
		return nil, errForeignUser
	case older && b.Member.ClaimedUserID != "" && b.Member.ClaimedUserID != r.vouched:
		return nil, errForeignUser
	}
	if strings.EqualFold(r.sfuServer, s.serverName) {
		r.sfuServer = ""
	}
	if r.sfuServer != "" && way == routeProxiedDelegate {
		return nil, errOtherSFU
	}
	return r, nil
}

// isOurs tells whether the address of an SFU is the one of this service, as it
// is announced or as clients are given it.
func (s *Service) isOurs(address string) bool {
	if address == s.announced || address == s.sfuURL {
		return true
	}
	given, err := matrixrtc.ParseTransport(address)
	if err != nil {
		return false
	}
	for _, ours := range []string{s.announced, s.sfuURL} {
		if own, err := matrixrtc.ParseTransport(ours); err == nil && given == own {
			return true
		}
	}
	return false
}

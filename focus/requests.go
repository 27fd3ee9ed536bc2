package focus

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// maxField bounds each identifier of a request, in bytes. Matrix' own limit
// for user, room and device IDs is 255 (specification, appendices 4.2); OpenID
// tokens are shorter still in every homeserver, and may grow.
const (
	maxField = 255
	maxToken = 4096
)

// route names the public way by which a token was asked for. It is stored with
// the grant and stands on metrics.
type route string

const (
	// routeLegacy is POST /sfu/get.
	routeLegacy route = "legacy"
	// routeStandalone is POST /get_token.
	routeStandalone route = "standalone"
	// routeProxied is get_token of our own homeserver's users, handed over by it.
	routeProxied route = "proxied"
	// routeFederated is get_token of other homeservers, handed over by ours.
	routeFederated route = "federated"
	// routeRelayed is get_token of our own homeserver's users for the SFU of
	// another server, which says yes or no.
	routeRelayed route = "relayed"
	// routeDelegate is POST /delegate_delayed_leave, which gives no token.
	routeDelegate route = "delegate"
	// routeProxiedDelegate is the same of our own homeserver's users, handed
	// over by it.
	routeProxiedDelegate route = "proxied_delegate"
)

// givesNoToken tells the routes on which a leave is handed over and nothing
// else asked for.
func (r route) givesNoToken() bool { return r == routeDelegate || r == routeProxiedDelegate }

// tokenRequest is what all routes ask for, in one form.
type tokenRequest struct {
	route route
	// openID is the proof of who asks on the public routes; on the others
	// vouched is who the homeserver says it is.
	openID  matrixrtc.OpenIDToken
	vouched id.UserID
	// sfuURL is the SFU that is asked for, and sfuServer whose it is, empty for
	// ours. The public routes name none.
	sfuURL, sfuServer string
	slot              matrixrtc.SlotKey
	// claimed is who the client says it is; empty on the legacy route, where
	// the OpenID token alone says so.
	claimed  id.UserID
	deviceID id.DeviceID
	memberID string
	delay    delayFields
}

// identity is the name on the SFU that other clients expect of this route. On
// the proxied ones the shape of the body says which: the newer one names no
// device.
func (r *tokenRequest) identity(user id.UserID) matrixrtc.Identity {
	member := matrixrtc.Member{UserID: user, DeviceID: r.deviceID, ID: r.memberID}
	switch {
	case r.route == routeLegacy:
		return member.LegacyIdentity()
	case r.deviceID == "":
		return member.ProxiedIdentity()
	}
	return member.HashedIdentity()
}

// server is the homeserver of who asks.
func (r *tokenRequest) server() string {
	if r.vouched == "" {
		return r.openID.MatrixServerName
	}
	_, server, _ := strings.Cut(string(r.vouched), ":")
	return server
}

// legacyBody is the body of POST /sfu/get. Fields that are not listed are
// ignored: clients add some with every release.
type legacyBody struct {
	delayFields
	Room        string                `json:"room"`
	OpenIDToken matrixrtc.OpenIDToken `json:"openid_token"`
	DeviceID    string                `json:"device_id"`
}

// standaloneBody is the body of POST /get_token and /delegate_delayed_leave.
type standaloneBody struct {
	delayFields
	RoomID      string                `json:"room_id"`
	SlotID      string                `json:"slot_id"`
	OpenIDToken matrixrtc.OpenIDToken `json:"openid_token"`
	Member      struct {
		ID              string `json:"id"`
		ClaimedUserID   string `json:"claimed_user_id"`
		ClaimedDeviceID string `json:"claimed_device_id"`
	} `json:"member"`
}

// decode reads one JSON object and nothing after it. Its errors are
// [mautrix.RespError]: M_TOO_LARGE, or M_NOT_JSON for what is not JSON or of
// the wrong type, as clients know it from other services.
func decode(body io.Reader, into any) error {
	data, err := io.ReadAll(body)
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return mautrix.MTooLarge.WithMessage("the request is too large")
		}
		return mautrix.MNotJSON.WithMessage("the request could not be read")
	}
	if matrixrtc.TooDeep(data) {
		return mautrix.MNotJSON.WithMessage("the request is nested too deeply")
	}
	if err := json.Unmarshal(data, into); err != nil {
		if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return mautrix.MNotJSON.WithMessage(fmt.Sprintf("%s has the wrong type: %s", cmp.Or(jsonKey(mismatch.Field), "the request"), mismatch.Value))
		}
		return mautrix.MNotJSON.WithMessage("the request is not JSON")
	}
	return nil
}

// jsonKey is the key as it stands in the request: the names of embedded structs,
// which encoding/json adds, stand nowhere in it. Only they have capitals.
func jsonKey(field string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(field, "."), func(part string) bool {
		return strings.ContainsFunc(part, unicode.IsUpper)
	}), ".")
}

func decodeLegacy(body io.Reader) (*tokenRequest, error) {
	var b legacyBody
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	err := checkFields(
		field{"room", b.Room, true},
		field{"openid_token.access_token", b.OpenIDToken.AccessToken, true},
		field{"openid_token.matrix_server_name", b.OpenIDToken.MatrixServerName, true},
		field{"device_id", b.DeviceID, false},
		field{"delay_id", b.DelayID.Reveal(), false},
	)
	if err != nil {
		return nil, err
	}
	// "@a:hs" with device "8448:D" would be "@a:hs:8448" with device "D".
	if strings.Contains(b.DeviceID, ":") {
		return nil, mautrix.MBadJSON.WithMessage("device_id must not hold a colon here; use /get_token")
	}
	if err := b.check(false); err != nil {
		return nil, err
	}
	return &tokenRequest{
		route:    routeLegacy,
		delay:    b.delayFields,
		openID:   b.OpenIDToken,
		slot:     matrixrtc.SlotKey{RoomID: id.RoomID(b.Room), SlotID: matrixrtc.RoomCallSlot},
		deviceID: id.DeviceID(b.DeviceID),
	}, nil
}

func decodeStandalone(body io.Reader) (*tokenRequest, error) {
	return decodeMember(body, routeStandalone)
}

// decodeDelegate reads the body of POST /delegate_delayed_leave: that of
// /get_token, with a leave.
func decodeDelegate(body io.Reader) (*tokenRequest, error) {
	return decodeMember(body, routeDelegate)
}

func decodeMember(body io.Reader, way route) (*tokenRequest, error) {
	var b standaloneBody
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	err := checkFields(
		field{"room_id", b.RoomID, true},
		field{"slot_id", b.SlotID, true},
		field{"openid_token.access_token", b.OpenIDToken.AccessToken, true},
		field{"openid_token.matrix_server_name", b.OpenIDToken.MatrixServerName, true},
		field{"member.id", b.Member.ID, true},
		field{"member.claimed_user_id", b.Member.ClaimedUserID, true},
		field{"member.claimed_device_id", b.Member.ClaimedDeviceID, true},
		field{"delay_id", b.DelayID.Reveal(), false},
	)
	if err != nil {
		return nil, err
	}
	if err := b.check(way == routeDelegate); err != nil {
		return nil, err
	}
	return &tokenRequest{
		route:    way,
		delay:    b.delayFields,
		openID:   b.OpenIDToken,
		slot:     matrixrtc.SlotKey{RoomID: id.RoomID(b.RoomID), SlotID: b.SlotID},
		claimed:  id.UserID(b.Member.ClaimedUserID),
		deviceID: id.DeviceID(b.Member.ClaimedDeviceID),
		memberID: b.Member.ID,
	}, nil
}

type field struct {
	name, value string
	required    bool
}

// checkFields refuses what no client sends and no store should hold.
func checkFields(fields ...field) error {
	for _, f := range fields {
		limit := maxField
		if strings.HasSuffix(f.name, "access_token") {
			limit = maxToken
		}
		switch {
		case f.value == "" && f.required:
			return mautrix.MBadJSON.WithMessage(f.name + " is missing")
		case len(f.value) > limit:
			return mautrix.MBadJSON.WithMessage(fmt.Sprintf("%s is longer than %d bytes", f.name, limit))
		case strings.ContainsFunc(f.value, unicode.IsControl):
			return mautrix.MBadJSON.WithMessage(f.name + " holds a control character")
		}
	}
	return nil
}

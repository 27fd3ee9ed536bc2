package matrixrtc

import "maunium.net/go/mautrix/id"

// Member is one who asks to be in a slot: a user on a device, under a member
// ID that the client makes anew for each join (MSC4143). Requests of the
// legacy route have no member ID.
type Member struct {
	UserID   id.UserID
	DeviceID id.DeviceID
	ID       string
}

// Identity is the name of a participant on the SFU.
type Identity string

// LegacyIdentity is the identity that clients expect of POST /sfu/get:
// "@user:server:DEVICE", in clear. It is what other clients compute from a
// state-event membership.
func (m Member) LegacyIdentity() Identity {
	return Identity(string(m.UserID) + ":" + string(m.DeviceID))
}

// HashedIdentity is the identity of POST /get_token: the unpadded base64 of
// SHA-256 over the canonical JSON [user_id, device_id, member_id] (MSC4195 as
// shipped clients compute it). It is unsalted since clients recompute it.
func (m Member) HashedIdentity() Identity {
	return Identity(hashStrings(string(m.UserID), string(m.DeviceID), m.ID))
}

// ProxiedIdentity is the identity of tokens asked for through the homeserver:
// the unpadded base64 of SHA-256 over [user_id, member_id] (MSC4195, newest).
func (m Member) ProxiedIdentity() Identity {
	return Identity(hashStrings(string(m.UserID), m.ID))
}

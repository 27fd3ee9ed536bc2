package matrixrtc

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"maunium.net/go/mautrix/crypto/canonicaljson"
	"maunium.net/go/mautrix/id"
)

// RoomCallSlot is the slot ID of a room's one call. Requests of the legacy
// route name no slot and mean this one.
//
// The newest text of MSC4143 spells it in lower case while every client sends
// this spelling, so slot IDs are opaque here: never normalised, compared whole.
const RoomCallSlot = "m.call#ROOM"

// SlotKey names one slot of one Matrix room.
type SlotKey struct {
	RoomID id.RoomID
	SlotID string
}

// SFURoom is the name of a LiveKit room. It is a hash: which Matrix room it
// belongs to stands in the session row alone.
type SFURoom string

// SFURoom derives the LiveKit room name of the slot as MSC4195 does:
// the unpadded base64 of SHA-256 over the canonical JSON [room_id, slot_id].
func (k SlotKey) SFURoom() SFURoom {
	return SFURoom(hashStrings(string(k.RoomID), k.SlotID))
}

// hashStrings is base64(SHA-256(canonical JSON array of parts)), unpadded,
// standard alphabet. Canonical JSON and not json.Marshal: the latter escapes
// <, >, & and U+2028, which matrix-js-sdk does not.
func hashStrings(parts ...string) string {
	encoded, err := canonicaljson.Marshal(parts)
	if err != nil {
		// A slice of strings always has a canonical form.
		panic(fmt.Sprintf("matrixrtc: canonical JSON of strings: %v", err))
	}
	sum := sha256.Sum256(encoded)
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

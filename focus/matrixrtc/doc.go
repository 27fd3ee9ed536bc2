// Package matrixrtc is the vocabulary of MatrixRTC that the other packages
// share: slots, members, identities, transports, accesses and grants, and the
// one place where names of one world become names of the other. Nothing here
// does I/O.
//
// The words, as the proposals use them:
//
//   - focus: this service as clients see it; it authorises and allocates.
//   - slot: a place in a room where a call can run, "m.call#ROOM" (MSC4143).
//   - member: user, device and member ID of one who is in a slot.
//   - SFU room: the LiveKit room of a slot; its name is a hash (MSC4195).
//   - identity: the name of a participant on the SFU.
//   - grant: what one token allows; its row is the only way back from an
//     identity to a person.
package matrixrtc

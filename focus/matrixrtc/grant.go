package matrixrtc

import "time"

// OpenIDToken is what a homeserver's /openid/request_token answers and clients
// pass through unchanged (Matrix client-server API, OpenID). It is a Matrix
// OpenID token, not one of OpenID Connect.
type OpenIDToken struct {
	AccessToken      string `json:"access_token"`
	MatrixServerName string `json:"matrix_server_name"`
}

// Access is what the federation policy lets the users of one server do here.
// The zero value allows nothing.
type Access struct {
	// Join: get a token, connect, receive.
	Join bool
	// Publish is what they may send to our SFU.
	Publish Sources
	// Create: start the call, that is have its SFU room made.
	Create bool
	// Calls bounds the calls that they start.
	Calls Bounds
}

// Rights are those that the policy gives to each user of the server.
func (a Access) Rights() Rights {
	if !a.Join {
		return Rights{}
	}
	return Rights{Join: true, Start: a.Create, Publish: a.Publish}
}

// Grant is what one token allows.
type Grant struct {
	Room     SFURoom
	Identity Identity
	Publish  Sources
	// UpdateOwnMetadata: change one's name and attributes on the SFU.
	UpdateOwnMetadata bool
	// Lifetime is how long the token admits from now on.
	Lifetime time.Duration
	// Term tells the grants of one identity apart, before and after it was
	// revoked: 0 until the first time, then a number that each revocation makes
	// larger. Tokens of another term than the row's are worthless, whatever the
	// clocks say.
	Term int64
}

// UnknownTerm is the term of a token that names none.
const UnknownTerm = -1

// Ticket is what a token says whose signature and times were checked. It may
// be one of ours, or one that the SFU made for who is connected already.
type Ticket struct {
	Room     SFURoom
	Identity Identity
	// Publish and UpdateOwnMetadata are not read from a token, only written into
	// one: what its holder may do is decided anew at each connection.
	Publish           Sources
	UpdateOwnMetadata bool
	// Term is that of the grant that the token came from, or UnknownTerm.
	Term int64
	// MadeAt is when it was made, in whole seconds, by the clock of who made it.
	MadeAt  time.Time
	Expires time.Time
}

// Admission is what is decided of a ticket that may pass.
type Admission struct {
	// SFU is the name of the SFU that has the room, and Epoch how often the
	// room was moved to another one, plus one.
	SFU   string
	Epoch int
	// Publish is what the holder may send now, whatever the token said.
	Publish Sources
}

// RoomOptions are the limits of an SFU room, set when it is made.
type RoomOptions struct {
	// EmptyTimeout: how long the room is kept when nobody ever joined.
	EmptyTimeout time.Duration
	// DepartureTimeout: how long it is kept after the last participant left.
	DepartureTimeout time.Duration
	// MaxParticipants: 0 is no limit.
	MaxParticipants int
}

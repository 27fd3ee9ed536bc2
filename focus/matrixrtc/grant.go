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
	// Publish: send microphone, camera and screen to our SFU.
	Publish bool
	// Create: start the call, that is have its SFU room made.
	Create bool
}

// Grant is what one token allows.
type Grant struct {
	Room     SFURoom
	Identity Identity
	Publish  bool
	// Lifetime is how long the token admits from now on.
	Lifetime time.Duration
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

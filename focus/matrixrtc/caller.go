package matrixrtc

import "maunium.net/go/mautrix/id"

// Caller is for whom our own homeserver vouches when it hands over a request
// (MSC4512): one of its users, or another homeserver, which in turn vouches for
// its own users. The other homeserver may also have proved itself to us, by its
// signature. Exactly one of the two is set.
type Caller struct {
	User   id.UserID
	Origin string
}

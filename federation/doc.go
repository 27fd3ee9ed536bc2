// Package federation answers three questions about other homeservers: what may
// their users do here ([Policy]), is this really one of their users ([OpenID]),
// and has this server really sent this request ([Signatures]).
//
// Homeservers are named by strangers. So nothing goes out to a server that the
// policy does not let join, no connection is made to an address that is not
// public unless the operator listed it, whatever comes back is bounded in size
// and time, and a server that is slow or down delays only those who ask for
// it. The package stores nothing and never sees a Matrix room.
//
// All types are safe for concurrent use. None starts a goroutine of its own;
// those of net/http end with the connections they serve, which
// [OpenID.Close], [Signatures.Close] and the time limits end.
package federation

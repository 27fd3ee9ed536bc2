// Package federation answers two questions about other homeservers: what may
// their users do here ([Policy]), and is this really one of their users
// ([OpenID]).
//
// Homeservers are named by strangers, so nothing goes out to a server that the
// policy does not let join, no connection is made to an address that is not
// public unless the operator listed it, and everything that comes back is
// bounded in size and time. All types are safe for concurrent use; none starts
// a goroutine of its own.
package federation

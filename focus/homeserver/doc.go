// Package homeserver is our own homeserver, seen from outside with the
// as_token of our registration there. It knows who is in which room, of other
// servers' users too, as far as our own has seen; it carries requests to the
// homeservers of others; and it can be asked whether it is set up for us.
//
// MSC4502 (is_joined), MSC4512 (the proxy prefix and fed_proxy) and MSC4140
// (delayed events) say what is asked. Room and user IDs are opaque here: those
// of room version 12 have no server name.
package homeserver

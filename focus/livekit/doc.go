// Package livekit is one LiveKit seen from outside, whether it is our own
// child process or runs elsewhere: the tokens it accepts, its room service and
// its webhooks. LiveKit's protobuf messages end here; what leaves the package
// are matrixrtc types. All its types are safe for concurrent use.
package livekit

// Package leave looks after the leaves that clients hand over (delayed events,
// MSC4140): a client schedules at its homeserver the event that says it has
// left, and this package puts it off for as long as the client is connected to
// the SFU, and has it sent once the client is gone.
//
// The way of one leave is a small state machine (job.go):
//
//	waiting ──► connected ──► sending ──► done
//	   │  ▲         │
//	   ▼  │         └──► cancelling ──► done   (another leave took its place)
//	 failed ──► done
//
// What the SFU reports are hints: they come late, twice, in another order or
// not at all. Nobody is declared gone while the SFU may only have lost its
// memory, nor on one look alone, unless the client said goodbye itself.
//
// One goroutine, [Leaves.Run], decides; a bounded number of others ask the SFU
// and the homeservers (lane.go). A leave itself has none, so that ten thousand
// cost little. Homeservers limit how often somebody who shows no token may call
// them, and count all our calls as one somebody's: those are paced, the ones
// that are due first go first.
//
// A delay ID is the one secret here: who knows it may send the leave.
package leave

package main

import (
	"math"
	"runtime/debug"
)

// heapFloorSize is memory that the garbage collector believes to be in use. It
// is never touched and so never occupied.
const heapFloorSize = 32 << 20

// raiseHeapFloor returns what its caller keeps alive, and so makes the garbage
// collector run less often. It runs when the heap has doubled; ours is a few MiB
// for hours and would be doubled by some hundred requests. In exchange as much
// garbage as the floor is large may lie about, however large the heap grows.
// GOGC would multiply it instead. Who set a limit with GOMEMLIMIT wants it
// counted otherwise.
func raiseHeapFloor() []byte {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return nil
	}
	return make([]byte, heapFloorSize)
}

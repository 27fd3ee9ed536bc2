package leave

import "time"

// slot is a place in a heap.
type slot struct {
	// due is the order.
	due time.Time
	// index is the place, -1 outside.
	index int
}

func (s *slot) at() *slot { return s }

// dueHeap has what is due first in front. It implements [heap.Interface].
type dueHeap[T interface{ at() *slot }] []T

func (h dueHeap[T]) Len() int           { return len(h) }
func (h dueHeap[T]) Less(i, j int) bool { return h[i].at().due.Before(h[j].at().due) }
func (h dueHeap[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at().index, h[j].at().index = i, j
}

// Push implements [heap.Interface].
func (h *dueHeap[T]) Push(x any) {
	v := x.(T)
	v.at().index = len(*h)
	*h = append(*h, v)
}

// Pop implements [heap.Interface].
func (h *dueHeap[T]) Pop() any {
	var none T
	last := len(*h) - 1
	v := (*h)[last]
	(*h)[last] = none
	*h = (*h)[:last]
	v.at().index = -1
	return v
}

// Package bucket bounds how often many come, each for themselves.
package bucket

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Buckets are token buckets by key. The one used longest ago is forgotten when
// there are too many, and starts over with a full bucket. They are safe for
// concurrent use.
type Buckets[Key comparable] struct {
	mu    sync.Mutex
	each  rate.Limit
	burst int
	known *simplelru.LRU[Key, *rate.Limiter]
}

// New returns Buckets of which as many as size, at least 1, are kept, each with
// burst tokens at most and one more as often as each says. Without a burst there
// is no bound.
func New[Key comparable](size int, each rate.Limit, burst int) *Buckets[Key] {
	known, err := simplelru.NewLRU[Key, *rate.Limiter](size, nil)
	if err != nil {
		panic(err) // for a size below 1
	}
	return &Buckets[Key]{each: each, burst: burst, known: known}
}

// Reset changes the bound. All start over with full buckets.
func (b *Buckets[Key]) Reset(each rate.Limit, burst int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.each, b.burst = each, burst
	b.known.Purge()
}

// Take takes one token from the key's bucket and returns zero, or how long to
// wait for one.
func (b *Buckets[Key]) Take(key Key, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.burst == 0 {
		return 0
	}
	limiter, ok := b.known.Get(key)
	if !ok {
		limiter = rate.NewLimiter(b.each, b.burst)
		b.known.Add(key, limiter)
	}
	reservation := limiter.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return wait
}

package federation

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
	"maunium.net/go/mautrix/id"

	"passerelle/config"
)

const (
	// burstSeconds is how many seconds' worth of requests may come at once.
	burstSeconds = 10
	// maxBuckets bounds how many addresses, servers or users are kept account
	// of. One that is forgotten starts over with a full bucket.
	maxBuckets = 10_000
)

// Limits bounds how often tokens are asked for: by address before anything is
// read, by server before its homeserver is asked, by user once it is proved
// who asks. Each method takes one from the bucket and returns zero, or how
// long to wait.
type Limits struct {
	address, server, user *buckets
}

// NewLimits returns the limits of a configuration.
func NewLimits(c config.Limits) *Limits {
	l := &Limits{newBuckets(), newBuckets(), newBuckets()}
	l.Reconfigure(c)
	return l
}

// Reconfigure changes the limits. All start over with full buckets.
func (l *Limits) Reconfigure(c config.Limits) {
	l.address.reset(c.Address)
	l.server.reset(c.Server)
	l.user.reset(c.User)
}

// Address counts a request from an address; of IPv6, from its /64 network,
// since a client has all of that.
func (l *Limits) Address(address string) time.Duration {
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() && !ip.Is4In6() {
		if network, err := ip.WithZone("").Prefix(64); err == nil {
			address = network.String()
		}
	}
	return l.address.take(address, time.Now())
}

// Server counts a request that names a server of the policy. However the name
// is spelled, it is one server.
func (l *Limits) Server(name string) time.Duration {
	return l.server.take(strings.ToLower(name), time.Now())
}

// User counts a request of a user.
func (l *Limits) User(user id.UserID) time.Duration { return l.user.take(string(user), time.Now()) }

// buckets are token buckets by key. The one used longest ago is forgotten when
// there are too many.
type buckets struct {
	mu    sync.Mutex
	each  rate.Limit
	burst int
	known *simplelru.LRU[string, *rate.Limiter]
}

func newBuckets() *buckets { return &buckets{known: newLRU[*rate.Limiter](maxBuckets)} }

// newLRU remembers as many values by name, and forgets the one used longest ago.
func newLRU[Value any](size int) *simplelru.LRU[string, Value] {
	known, err := simplelru.NewLRU[string, Value](size, nil)
	if err != nil {
		panic(err) // the size is a constant above 0
	}
	return known
}

func (b *buckets) reset(perSecond int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.each, b.burst = rate.Limit(perSecond), perSecond*burstSeconds
	b.known.Purge()
}

func (b *buckets) take(key string, now time.Time) time.Duration {
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

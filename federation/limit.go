package federation

import (
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
	"maunium.net/go/mautrix/id"

	"passerelle/bucket"
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
	address, server, user *bucket.Buckets[string]
}

// NewLimits returns the limits of a configuration.
func NewLimits(c config.Limits) *Limits {
	l := &Limits{newBuckets(), newBuckets(), newBuckets()}
	l.Reconfigure(c)
	return l
}

// Reconfigure changes the limits. All start over with full buckets.
func (l *Limits) Reconfigure(c config.Limits) {
	reset(l.address, c.Address)
	reset(l.server, c.Server)
	reset(l.user, c.User)
}

// Address counts a request from an address; of IPv6, from its /64 network,
// since a client has all of that.
func (l *Limits) Address(address string) time.Duration {
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is6() && !ip.Is4In6() {
		if network, err := ip.WithZone("").Prefix(64); err == nil {
			address = network.String()
		}
	}
	return l.address.Take(address, time.Now())
}

// Server counts a request that names a server of the policy. However the name
// is spelled, it is one server.
func (l *Limits) Server(name string) time.Duration {
	return l.server.Take(strings.ToLower(name), time.Now())
}

// User counts a request of a user.
func (l *Limits) User(user id.UserID) time.Duration { return l.user.Take(string(user), time.Now()) }

func newBuckets() *bucket.Buckets[string] { return bucket.New[string](maxBuckets, 0, 0) }

func reset(b *bucket.Buckets[string], perSecond int) {
	b.Reset(rate.Limit(perSecond), perSecond*burstSeconds)
}

// newLRU remembers as many values by name, and forgets the one used longest ago.
func newLRU[Value any](size int) *simplelru.LRU[string, Value] {
	known, err := simplelru.NewLRU[string, Value](size, nil)
	if err != nil {
		panic(err) // the size is a constant above 0
	}
	return known
}

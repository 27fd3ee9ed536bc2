package focus

import (
	"crypto/sha256"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

const (
	// proofLife is how long a homeserver's OpenID token is good: an hour in
	// Synapse. One that lives longer is asked about again after it, and bound
	// again.
	proofLife = time.Hour
	// maxProofs bounds how many tokens are remembered, in some 6 MiB. One user
	// who asks as often as the default limit allows needs more than three hours
	// to push another's out.
	maxProofs = 1 << 16
)

// proofs remembers for what each OpenID token was used first. Such a token is
// good for an hour, for any number of uses and for any service: whoever got it,
// another call's service or a widget, could use it here in its owner's name. So
// it is good here for one room on one device. Clients ask for a new one for
// each call, and may use it for both routes and again.
//
// Only hashes are kept. Another process does not know of them.
type proofs struct {
	began time.Time
	max   int

	mu   sync.Mutex
	uses map[digest]use
	// order is a ring with the tokens as they came, which is how they expire.
	// oldest is where the oldest of the used ones stands.
	order        []digest
	oldest, used int
}

// digest is half of a SHA-256.
type digest [16]byte

type use struct {
	of    digest
	until time.Duration // since began
}

// newProofs takes the memory for all of them at once: growing would take more.
func newProofs(limit int) *proofs {
	return &proofs{began: time.Now(), max: limit, uses: make(map[digest]use, limit), order: make([]digest, limit)}
}

// digestOf joins parts of which none holds a NUL; requests with control
// characters are refused.
func digestOf(parts ...string) digest {
	joined := make([]byte, 0, 512)
	for _, part := range parts {
		joined = append(append(joined, part...), 0)
	}
	sum := sha256.Sum256(joined)
	return digest(sum[:len(digest{})])
}

// proofOf stands for the token itself.
func proofOf(token matrixrtc.OpenIDToken) digest {
	return digestOf(token.MatrixServerName, token.AccessToken)
}

// useOf is what a token can be good for.
func useOf(user id.UserID, room matrixrtc.SFURoom, device id.DeviceID) digest {
	return digestOf(string(user), string(room), string(device))
}

// usedElsewhere tells whether the token was used for something else.
func (p *proofs) usedElsewhere(proof, now digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	first, ok := p.uses[proof]
	return ok && first.of != now && time.Since(p.began) < first.until
}

// bind makes this the token's use, and tells whether it is: another may have
// come first.
func (p *proofs) bind(proof, now digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Since(p.began)
	if first, ok := p.uses[proof]; ok && at < first.until {
		return first.of == now
	}
	p.forget(at)
	p.uses[proof] = use{now, at + proofLife}
	p.order[(p.oldest+p.used)%p.max] = proof
	p.used++
	return true
}

// forget drops what has expired, and the oldest when there would be too many.
func (p *proofs) forget(at time.Duration) {
	for p.used > 0 {
		oldest := p.order[p.oldest]
		if p.used < p.max && p.uses[oldest].until > at {
			return
		}
		delete(p.uses, oldest)
		p.oldest = (p.oldest + 1) % p.max
		p.used--
	}
}

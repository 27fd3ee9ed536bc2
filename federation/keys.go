package federation

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"maunium.net/go/mautrix/federation"
	"maunium.net/go/mautrix/federation/signutil"
	"maunium.net/go/mautrix/id"
)

const (
	// keysPath is where a server publishes its keys (server-server API,
	// "Retrieving server keys").
	keysPath = "/_matrix/key/v2/server"
	// keysFor is how long published keys are not asked for again, and how soon
	// one that was taken back is noticed.
	keysFor = time.Hour
	// maxKeysFor is how long they count at most, if the server cannot be asked
	// any more, whatever it said ("valid_until_ts").
	maxKeysFor = 7 * 24 * time.Hour
	// keysPause is how long a server is not asked again because somebody names
	// a key that it does not have, or because it gave no good answer.
	keysPause = 30 * time.Second
	// maxKeyServers bounds how many servers' keys are kept, maxKeys those of one.
	maxKeyServers, maxKeys = 1024, 8
	// maxKeyWaits bounds how many requests wait for the keys of one server, and
	// maxAllKeyWaits those of all.
	maxKeyWaits, maxAllKeyWaits = 256, 1024
	// maxKeyID bounds a key's ID, in bytes.
	maxKeyID = 128
)

var (
	// ErrUnknownKey is returned for a key that the origin does not have, or has
	// no more.
	ErrUnknownKey = errors.New("the origin has no such key")
	// ErrNoKeys is returned when the origin's keys cannot be had.
	ErrNoKeys = errors.New("the keys of the origin could not be had")
)

// keyring holds the keys that other servers have published. It asks for them
// when they are needed, once for all who wait, and no oftener than strangers
// must be able to make it.
type keyring struct {
	asker *asker
	now   func() time.Time

	mu      sync.Mutex
	waiting int
	known   *simplelru.LRU[string, *published] // by name in lower case
}

// published is what is known of one server's keys.
type published struct {
	// name is in lower case, by which the server is asked; spelled is how it
	// writes it itself, and so how it signs.
	name, spelled string
	keys          map[id.KeyID]id.SigningKey
	// until is when they end, asked when the server was asked last, and failure
	// what came of it, nil if it was good.
	until, asked time.Time
	failure      error
	// asking is closed at the end of the question that is under way.
	asking  chan struct{}
	waiting int
}

func newKeyring(a *asker) *keyring {
	return &keyring{asker: a, now: time.Now, known: newLRU[*published](maxKeyServers)}
}

// find returns the key that the server signs with now. Whoever writes its name
// otherwise than it does is not that server, but has it asked no oftener. Errors
// are [ErrUnknownKey] and [ErrNoKeys].
func (k *keyring) find(ctx context.Context, server string, key id.KeyID) (id.SigningKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.of(strings.ToLower(server))
	for {
		now := k.now()
		found, ok := p.keys[key]
		ok = ok && p.spelled == server && now.Before(p.until)
		switch due := !p.asked.Add(keysFor).After(now); {
		case ok && !due:
			return found, nil
		case p.asking != nil:
		case !now.Before(p.asked.Add(keysPause)):
			// Whose client gives up must not fail those who wait, too.
			k.fetch(context.WithoutCancel(ctx), p)
			continue
		case ok:
			return found, nil // asked for in vain a moment ago
		case p.failure != nil:
			return "", fmt.Errorf("%w: %w", ErrNoKeys, p.failure)
		default:
			return "", ErrUnknownKey
		}
		if err := k.wait(ctx, p); err != nil {
			return "", err
		}
	}
}

// wait lets go of the lock until the question about the server is answered.
func (k *keyring) wait(ctx context.Context, p *published) error {
	if p.waiting >= maxKeyWaits || k.waiting >= maxAllKeyWaits {
		return fmt.Errorf("%w: too many wait for them", ErrNoKeys)
	}
	p.waiting++
	k.waiting++
	asking := p.asking
	k.mu.Unlock()
	var err error
	select {
	case <-asking:
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", ErrNoKeys, ctx.Err())
	}
	k.mu.Lock()
	p.waiting--
	k.waiting--
	return err
}

// of returns what is known of a server, which may be nothing.
func (k *keyring) of(name string) *published {
	p, ok := k.known.Get(name)
	if !ok {
		p = &published{name: name}
		k.known.Add(name, p)
	}
	return p
}

// fetch asks the server for its keys, and lets go of the lock meanwhile. It ends
// with the configured timeout.
func (k *keyring) fetch(ctx context.Context, p *published) {
	var spelled string
	var keys map[id.KeyID]id.SigningKey
	var until time.Time
	err := errors.New("it was not asked to the end")
	p.asking = make(chan struct{})
	k.mu.Unlock()
	defer func() { // after a panic, too
		k.mu.Lock()
		p.asked, p.failure = k.now(), err
		if err == nil {
			p.spelled, p.keys, p.until = spelled, keys, until
		}
		close(p.asking)
		p.asking = nil
	}()
	status, body, err := k.asker.ask(ctx, p.name, keysPath, nil)
	switch {
	case err == nil && status != http.StatusOK:
		err = fmt.Errorf("status %d", status)
	case err == nil:
		spelled, keys, until, err = readKeys(body, p.name, k.now())
	}
}

// readKeys reads the answer of a server, whose name is in lower case. It returns
// how that writes its name, the keys that it signs with now, each of which has
// signed the answer, and until when they count. Old keys (old_verify_keys) are
// good for old events, and for no request.
func readKeys(body []byte, server string, now time.Time) (spelled string, keys map[id.KeyID]id.SigningKey, until time.Time, err error) {
	var answer federation.ServerKeyResponse
	if !flatObject(body) || json.Unmarshal(body, &answer) != nil {
		return "", nil, until, errors.New("its answer is not the JSON expected")
	}
	until = answer.ValidUntilTS.Time
	switch {
	case strings.ToLower(answer.ServerName) != server:
		return "", nil, until, errors.New("its keys are those of another server")
	case !now.Before(until):
		return "", nil, until, errors.New("its keys have ended")
	case len(answer.VerifyKeys) > maxKeys:
		return "", nil, until, errors.New("it has too many keys")
	}
	keys = map[id.KeyID]id.SigningKey{}
	for name, key := range answer.VerifyKeys {
		_, old := answer.OldVerifyKeys[name]
		if !old && validKey(name, key.Key) && signutil.VerifyJSON(answer.ServerName, name, key.Key, answer.Raw) == nil {
			keys[name] = key.Key
		}
	}
	if len(keys) == 0 {
		return "", nil, until, errors.New("none of its keys has signed its answer")
	}
	return answer.ServerName, keys, earlier(until, now.Add(maxKeysFor)), nil
}

// validKey tells whether a key can be verified with. crypto/ed25519 panics on
// one of another length.
func validKey(name id.KeyID, key id.SigningKey) bool {
	algorithm, _ := name.Parse()
	decoded, err := base64.RawStdEncoding.DecodeString(string(key))
	return algorithm == id.KeyAlgorithmEd25519 && len(name) <= maxKeyID && err == nil && len(decoded) == ed25519.PublicKeySize
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

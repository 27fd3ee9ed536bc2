package homeserver

import (
	"strings"
	"sync"

	"maunium.net/go/mautrix/id"
)

const (
	// maxRaces bounds how many "no" are asked again at one time; strangers who
	// ask for rooms that they are not in must not cost the homeserver more.
	maxRaces = 64
	// maxServerRaces bounds those of the users of one server, which must not keep
	// the users of all others from being waited for.
	maxServerRaces = 16
)

// races are the "no" that are asked again now.
type races struct {
	mu    sync.Mutex
	total int
	of    map[string]int // by server, without zeros
}

// enter admits one, at whose end leave is called, or refuses it.
func (r *races) enter(user id.UserID) (leave func(), ok bool) {
	_, server, _ := strings.Cut(string(user), ":")
	server = strings.ToLower(server)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total >= maxRaces || r.of[server] >= maxServerRaces {
		return nil, false
	}
	r.total++
	r.of[server]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.total--
		if r.of[server]--; r.of[server] == 0 {
			delete(r.of, server)
		}
	}, true
}

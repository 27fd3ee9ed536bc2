package door

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"passerelle/bucket"
	"passerelle/focus/matrixrtc"
)

const (
	// attemptsAtOnce is how many attempts of one participant may come at once. A
	// client of LiveKit whose network comes and goes makes ten of two requests
	// each in 44 s before it gives up; its user may press the button again.
	attemptsAtOnce = 60
	// attemptEvery is how often one more may come after that. Each costs the rows
	// of a connection and a look at the grant, also when it is broken off at once.
	attemptEvery = 2 * time.Second
	// maxHolders bounds of how many participants account is kept. Who is forgotten
	// starts over.
	maxHolders = 10_000
)

// holder is a participant with tokens of one term: whoever goes on trying those
// that were taken back keeps nobody out who was given others since.
type holder struct {
	who
	term int64
}

// attempts are token buckets by participant. Only genuine tokens are counted:
// no stranger empties somebody's bucket.
type attempts struct{ of *bucket.Buckets[holder] }

func newAttempts() *attempts {
	return &attempts{of: bucket.New[holder](maxHolders, rate.Every(attemptEvery), attemptsAtOnce)}
}

// take counts an attempt and returns zero, or how long to wait.
func (a *attempts) take(t matrixrtc.Ticket, now time.Time) time.Duration {
	return a.of.Take(holder{who{t.Room, t.Identity}, t.Term}, now)
}

// tooOften answers who has to wait. It is 503 and not 429, on which clients give
// up, nor 404, after which they would try an older route.
func (d *Door) tooOften(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	d.refuse(w, http.StatusServiceUnavailable, "too_often", "too many attempts to connect; try again later")
}

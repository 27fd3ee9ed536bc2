// Package chaos plays many calls at once with everything that happens to
// people: they leave, reload, lose their network, their machine sleeps, their
// browser dies; and meanwhile Passerelle is killed again and again, and the
// homeserver restarted. It then asks the homeservers who is still in a call,
// who was put out of one wrongly, and which leave came how often and how late.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// Options say how much of it.
type Options struct {
	// Joins is how many guests there are, AtOnce how many at a time.
	Joins, AtOnce int
	// Seed makes the parts and the moments of the kills.
	Seed uint64
	// Stays is the delay of the leaves of those who stay past it.
	Stays time.Duration
	// KillEvery is the mean time from one kill of Passerelle to the next.
	KillEvery time.Duration
	// Restart restarts the homeserver when half of the guests are done.
	Restart bool
	// Progress is told what happens, for people; it may be nil.
	Progress func(line string)
}

// roomSize is how many guests share a call at most.
const roomSize = 4

// run is one run.
type run struct {
	options Options
	town    *town.Town
	// home is the ministry whose staff call; the other one looks on.
	home, other *town.Ministry
	rooms       []id.RoomID
	users       []*synapse.User
	client      *http.Client
	presence    *presence
	memberships *memberships
	troubles    troubles

	mu     sync.Mutex
	guests []*guest
}

// Run plays it in a town without host pages, and judges. The report is good as
// far as it goes, also with an error.
func Run(ctx context.Context, t *town.Town, o Options) (*Report, error) {
	r := &run{
		options: o, town: t, home: t.Interieur, other: t.Finances,
		client: &http.Client{Timeout: 10 * time.Second}, presence: newPresence(), memberships: newMemberships(),
	}
	defer r.client.CloseIdleConnections()
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer stop()
	sfu, err := r.home.SFU()
	if err != nil {
		return nil, err
	}
	watchers.Go(func() { r.presence.follow(watching, sfu) })
	watchers.Go(func() { r.other.Watcher.FollowMemberships(watching, r.memberships.note) })
	began := time.Now()
	played := r.play(ctx)
	report, err := r.judge(ctx)
	if report != nil {
		report.Took = time.Since(began)
	}
	return report, errors.Join(played, err)
}

// settle makes users and rooms; the other ministry's member is in each room, to
// look on.
func (r *run) settle(ctx context.Context) error {
	for i := range r.options.AtOnce {
		user, err := r.home.Homeserver.Register(ctx, fmt.Sprintf("guest%02d", i), fmt.Sprintf("Guest %d", i))
		if err != nil {
			return err
		}
		r.users = append(r.users, user)
		if i%roomSize == 0 {
			room, err := user.CreateCallRoom(ctx, fmt.Sprintf("Call %d", i/roomSize), false, r.other.User.UserID)
			if err != nil {
				return err
			}
			r.rooms = append(r.rooms, room)
			if err := r.other.User.JoinInvited(ctx, room, r.home.Homeserver.Name); err != nil {
				return err
			}
			continue
		}
		room := r.rooms[len(r.rooms)-1]
		if _, err := r.users[i-i%roomSize].InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: user.UserID}); err != nil {
			return err
		}
		if err := user.JoinInvited(ctx, room, r.home.Homeserver.Name); err != nil {
			return err
		}
	}
	return nil
}

// play has every guest play, as many at once as there are users, while the
// troubles go on.
func (r *run) play(ctx context.Context) error {
	random := rand.New(rand.NewPCG(r.options.Seed, 1))
	scripts := make(chan script, r.options.Joins)
	for _, s := range plan(random, r.options.Joins, r.options.Stays) {
		scripts <- s
	}
	close(scripts)
	playing, stop := context.WithCancel(ctx)
	half := make(chan struct{})
	troubled := make(chan error, 1)
	go func() { troubled <- r.makeTrouble(playing, half) }()
	var failures []error
	var actors errgroup.Group
	for i, user := range r.users {
		actors.Go(func() error {
			for s := range scripts {
				g := &guest{script: s, run: r, user: user, room: r.rooms[i/roomSize]}
				err := g.play(ctx)
				if r.finished(g, half) {
					r.say(fmt.Sprintf("%d of %d", len(r.guests), r.options.Joins))
				}
				if err != nil {
					r.say(err.Error())
					r.mu.Lock()
					failures = append(failures, err)
					r.mu.Unlock()
				}
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
			}
			return nil
		})
	}
	err := actors.Wait()
	stop()
	return errors.Join(append(failures, err, <-troubled)...)
}

// finished notes a guest that is done, and says whether it is worth a word.
func (r *run) finished(g *guest, half chan struct{}) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guests = append(r.guests, g)
	if len(r.guests) == (r.options.Joins+1)/2 {
		close(half)
	}
	return len(r.guests)%10 == 0
}

func (r *run) say(line string) {
	if r.options.Progress != nil {
		r.options.Progress(line)
	}
}

// Package crowd has thousands of clients hand their delayed leaves over at once.
// The homeserver is a real Synapse with every limit as it comes, Passerelle the
// real binary, which is killed again and again; only the SFU is pretended, since
// so many cannot all send media on one machine. It loses and repeats some of its
// reports. Afterwards the homeserver is asked for every leave: each client that
// went must have one, and nobody that is there.
package crowd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/timing"
)

// Options say how much of it.
type Options struct {
	// Python has Synapse; Binary is Passerelle.
	Python, Binary string
	// Clients is how many there are, AtOnce how many of them ask for something at
	// the same time.
	Clients, AtOnce int
	// Delay is that of their leaves. Most stay for longer.
	Delay time.Duration
	// KillEvery is the mean time from one kill of Passerelle to the next.
	KillEvery time.Duration
	// Stranger: Passerelle has no token for its homeserver, which therefore limits
	// it to one call about delayed leaves a second.
	Stranger bool
	// Seed makes the parts, the moments of the kills, and which reports are lost.
	Seed uint64
	// Logs is where the servers' logs are kept when something went wrong; empty
	// for nowhere.
	Logs string
	// Progress is told what happens, for people; it may be nil.
	Progress func(line string)
}

const (
	// perUser is how many clients a user has; Passerelle looks after 20 leaves of
	// one user at most.
	perUser = 16
	// perRoom is how many users share a room.
	perRoom = 5
)

// run is one run.
type run struct {
	options Options
	place   *place
	users   []*synapse.User
	rooms   []id.RoomID
	clients []*client
	client  *http.Client
	meter   *meter
	// turns bounds how many clients do something at once; full is closed when all
	// have come.
	turns, full chan struct{}

	mu       sync.Mutex
	in, most int
	left     int
	kills    int
	failures []error
}

// Run plays it and judges. The report is good as far as it goes, also with an
// error.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	p, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && o.Logs != "" {
			err = errors.Join(err, p.keepLogs(o.Logs))
		}
		err = errors.Join(err, p.close())
	}()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 2 * o.AtOnce
	r := &run{
		options: o, place: p, meter: newMeter(p.private + "/metrics"), turns: make(chan struct{}, o.AtOnce),
		full:   make(chan struct{}),
		client: &http.Client{Timeout: time.Minute, Transport: transport},
	}
	defer r.client.CloseIdleConnections()
	began := time.Now()
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	r.say("%d users are in %d rooms after %s", len(r.users), len(r.rooms), time.Since(began).Round(time.Second))
	metering, stop := context.WithCancel(ctx)
	var meters sync.WaitGroup
	meters.Go(func() { r.meter.follow(metering) })
	played := r.play(ctx)
	if played == nil {
		played = r.calm(ctx)
	}
	stop()
	meters.Wait()
	report, err = r.judge(ctx)
	if report != nil {
		report.Took = time.Since(began)
		report.Stranger = o.Stranger
	}
	return report, errors.Join(played, err)
}

// settle makes users, whom it frees of limits so that they can be many clients,
// rooms, and the clients' parts.
func (r *run) settle(ctx context.Context) error {
	admin, err := r.place.homeserver.RegisterAdmin(ctx, "admin")
	if err != nil {
		return err
	}
	parts := plan(rand.New(rand.NewPCG(r.options.Seed, 1)), r.options.Clients, r.options.Delay, r.options.Stranger)
	r.users = make([]*synapse.User, (len(parts)+perUser-1)/perUser)
	r.rooms = make([]id.RoomID, (len(r.users)+perRoom-1)/perRoom)
	var settling errgroup.Group
	settling.SetLimit(cap(r.turns))
	for n := range r.rooms {
		settling.Go(func() error {
			for i := n * perRoom; i < min((n+1)*perRoom, len(r.users)); i++ {
				if err := r.settleUser(ctx, admin, i, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := settling.Wait(); err != nil {
		return err
	}
	for i, p := range parts {
		user := i % len(r.users)
		r.clients = append(r.clients, &client{part: p, run: r, user: r.users[user], room: r.rooms[user/perRoom]})
	}
	return r.limited(ctx)
}

func (r *run) settleUser(ctx context.Context, admin *synapse.User, i, room int) error {
	user, err := r.place.homeserver.Register(ctx, fmt.Sprintf("member%04d", i), "")
	if err != nil {
		return err
	}
	user.Client.Client = r.client
	r.users[i] = user
	if err := admin.Unlimit(ctx, user.UserID); err != nil {
		return err
	}
	if i%perRoom == 0 {
		r.rooms[room], err = user.CreateOpenCallRoom(ctx, fmt.Sprintf("Call %d", room))
		return err
	}
	return user.JoinInvited(ctx, r.rooms[room], r.place.homeserver.Name)
}

// limited makes sure that the limits are on: a user who was not freed, and who
// acts often enough, is told to wait.
func (r *run) limited(ctx context.Context) error {
	other, err := r.place.homeserver.Register(ctx, "limited", "")
	if err != nil {
		return err
	}
	other.Client.Client = r.client
	for range 10 {
		if err := other.CancelDelayed(ctx, "none"); status(err) == http.StatusTooManyRequests {
			return nil
		}
	}
	return errors.New("the homeserver limits nobody, so the run would prove nothing")
}

// play has every client play its part while Passerelle is killed.
func (r *run) play(ctx context.Context) error {
	playing, stop := context.WithCancel(ctx)
	killed := make(chan error, 1)
	go func() { killed <- r.kill(playing) }()
	var coming, acting sync.WaitGroup
	coming.Add(1)
	acting.Go(func() {
		coming.Wait()
		close(r.full)
	})
	for _, c := range r.clients {
		// They come in their order, as fast as the homeserver takes them.
		if err := r.turn(ctx); err != nil {
			break
		}
		coming.Add(1)
		acting.Go(func() {
			if err := c.play(ctx, coming.Done); err != nil {
				r.failed(c, err)
			}
		})
	}
	coming.Done()
	acting.Wait()
	stop()
	failed := <-killed
	r.mu.Lock()
	defer r.mu.Unlock()
	failures := r.failures
	if len(failures) > 10 {
		failures = append(failures[:10:10], fmt.Errorf("and %d more", len(r.failures)-10))
	}
	return errors.Join(append(failures, context.Cause(ctx), failed)...)
}

// kill kills Passerelle at random moments and starts it again at once, as a
// service manager would, until ctx is done.
func (r *run) kill(ctx context.Context) error {
	random := rand.New(rand.NewPCG(r.options.Seed, 2))
	for {
		// From half to one and a half of the mean.
		if timing.Wait(ctx, r.options.KillEvery/2+time.Duration(random.Int64N(int64(r.options.KillEvery)))) != nil {
			return nil
		}
		r.meter.read(ctx) // its counters die with it
		began := time.Now()
		// The run must not end without one.
		if err := r.place.replace(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("kill Passerelle and start it again: %w", err)
		}
		r.mu.Lock()
		r.kills++
		in, left := r.in, r.left
		r.mu.Unlock()
		r.say("%d are there, %d have left; Passerelle was killed and is ready again after %s; %s",
			in, left, time.Since(began).Round(10*time.Millisecond), r.meter)
	}
}

// calm returns when Passerelle has no leaves but those of who is still there,
// and gives it some time for what it should not do.
func (r *run) calm(ctx context.Context) error {
	patience := 2 * time.Minute
	if r.options.Stranger {
		patience += time.Duration(len(r.clients)) * 2 * time.Second
	}
	deadline := time.Now().Add(patience)
	for r.meter.leaves() != r.in && time.Now().Before(deadline) {
		if err := timing.Wait(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return timing.Wait(ctx, 3*time.Second)
}

// turn waits until a client may do something; done lets the next one.
func (r *run) turn(ctx context.Context) error {
	select {
	case r.turns <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *run) done() { <-r.turns }

// arrived and went count who is there.
func (r *run) arrived() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in++
	r.most = max(r.most, r.in)
}

func (r *run) went() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in--
	r.left++
}

func (r *run) failed(c *client, err error) {
	err = fmt.Errorf("%s: %w", c, err)
	r.say("%v", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, err)
}

func (r *run) say(format string, args ...any) {
	if r.options.Progress != nil {
		r.options.Progress(fmt.Sprintf(format, args...))
	}
}

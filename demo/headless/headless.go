// Package headless makes the call of the demonstration by itself: two real
// browsers, one in each ministry, and a judgement. It passes only if each
// caller saw the other's picture move and heard the other's tone, and if both
// departures, one by the button and one by a killed browser, were seen by the
// other ministry's homeserver. How fast is reported beside the aims, and not
// judged: that depends on what else the machine does.
package headless

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/caller"
	"passerelle/demo/synapse"
	"passerelle/demo/town"
)

// The aims, from a departure to the other homeserver's news of it.
const (
	ButtonAim = time.Second
	// KillAim is for a browser that died, from when LiveKit is sure of it, which
	// takes it some 20 seconds. Passerelle, to which the browser had handed its
	// leave over, then has it sent. Its own timer is an hour.
	KillAim = 500 * time.Millisecond
)

// After these times something is broken, however loaded the machine is.
const (
	liveWithin   = 3 * time.Minute
	buttonWithin = 10 * time.Second
	leaveWithin  = time.Minute
)

// Tones that the microphones hear, in hertz: far apart, and no multiple of
// each other.
const (
	agnesTone = 440
	brunoTone = 1170
)

// Options say how to call.
type Options struct {
	// Chromium is the browser's program.
	Chromium string
	// Out is an existing folder for the screenshots.
	Out string
	// Lang is the language of the pages: fr or en.
	Lang string
	// KillSFU is how often an SFU is killed while the call is live.
	KillSFU int
	Log     zerolog.Logger
}

// Report is what was seen.
type Report struct {
	Timeline Timeline
	// Agnes and Bruno are what each of them received of the other.
	Agnes, Bruno caller.Media
	// ButtonSeen is the time from the button to the other homeserver's news of
	// it; 0 if there was none.
	ButtonSeen time.Duration
	// GivenUp is how long LiveKit took to give up on the killed browser, KillSeen
	// the time from then to the other homeserver's news of it.
	GivenUp, KillSeen time.Duration
	// PicturesBack are the times from each kill of an SFU until the one who
	// watched through it saw the other's picture move again.
	PicturesBack []time.Duration
	// Screenshots are the files written.
	Screenshots []string
}

// Run makes one call in the town. The report is good as far as it goes, also
// with an error.
func Run(ctx context.Context, t *town.Town, o Options) (report *Report, err error) {
	r := &run{town: t, options: o, say: texts[o.Lang], report: &Report{Timeline: Timeline{began: time.Now()}}, news: make(chan news, 64)}
	return r.report, r.call(ctx)
}

// run is one call.
type run struct {
	town    *town.Town
	options Options
	say     text
	report  *Report
	// news comes from the two watchers; when it is full they wait.
	news     chan news
	watchers errgroup.Group
}

// news is a change in who is in the call, as a ministry's homeserver saw it.
type news struct {
	synapse.Change
	from *town.Ministry
}

// watch follows who is in the call as m's homeserver has it. Sticky events of
// an encrypted room are encrypted, so there it is m's caller, whose browser has
// the keys, that is asked, over and over; the answer is a little later then.
func (r *run) watch(ctx context.Context, m *town.Ministry, c *caller.Caller) {
	report := func(change synapse.Change) { r.heard(ctx, m, change) }
	r.watchers.Go(func() error {
		if !r.town.HiddenMembers {
			return m.Watcher.WatchCall(ctx, r.town.Room, report)
		}
		return r.watchPage(ctx, c, report)
	})
}

// pageInterval is how often a page is asked.
const pageInterval = 50 * time.Millisecond

// watchPage reports until ctx is done or the browser is gone.
func (r *run) watchPage(ctx context.Context, c *caller.Caller, report func(synapse.Change)) error {
	ticker := time.NewTicker(pageInterval)
	defer ticker.Stop()
	in := map[string]bool{}
	for {
		users, err := c.InCall(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, caller.ErrGone):
			return nil
		case err != nil:
			return err
		}
		now := time.Now()
		for user := range in {
			if !slices.Contains(users, user) {
				delete(in, user)
				report(synapse.Change{At: now, User: id.UserID(user)})
			}
		}
		for _, user := range users {
			if !in[user] {
				in[user] = true
				report(synapse.Change{At: now, User: id.UserID(user), Joined: true})
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *run) heard(ctx context.Context, m *town.Ministry, c synapse.Change) {
	select {
	case r.news <- news{c, m}:
	case <-ctx.Done():
	}
}

func (r *run) call(ctx context.Context) (err error) {
	t := r.town
	// Bruno first: he leaves last, and his partner leaves by the button.
	bruno, err := r.open(ctx, t.Finances, brunoTone, agnesTone)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bruno.Close()) }()
	agnes, err := r.open(ctx, t.Interieur, agnesTone, brunoTone)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agnes.Close()) }()

	watching, stop := context.WithCancel(ctx)
	defer func() {
		// Before the browsers are closed, which their watchers would take for a
		// fault.
		stop()
		err = errors.Join(err, r.watchers.Wait())
	}()
	r.watch(watching, t.Interieur, agnes)
	r.watch(watching, t.Finances, bruno)
	callers := map[string]*caller.Caller{"agnes": agnes, "bruno": bruno}
	defer func() {
		// How clients came back is worth a look also where all went well.
		if err != nil || r.options.KillSFU > 0 {
			err = errors.Join(err, r.keepConsoles(callers))
		}
	}()
	if err := r.awaitLive(ctx, agnes, bruno); err != nil {
		return err
	}
	for name, c := range callers {
		path := filepath.Join(r.options.Out, name+".png")
		if err := c.Screenshot(ctx, path); err != nil {
			return err
		}
		r.report.Screenshots = append(r.report.Screenshots, path)
	}
	if err := r.killSFUs(ctx, agnes, bruno); err != nil {
		return err
	}
	if r.report.ButtonSeen, err = r.hangUp(ctx, agnes); err != nil {
		return err
	}
	return r.kill(ctx, bruno)
}

// keepConsoles writes what browsers and servers said, to look into what went wrong.
func (r *run) keepConsoles(callers map[string]*caller.Caller) error {
	var failures []error
	for name, c := range callers {
		path := filepath.Join(r.options.Out, name+".console.txt")
		failures = append(failures, os.WriteFile(path, []byte(strings.Join(c.Console(), "\n")), 0o644))
	}
	return errors.Join(append(failures, r.town.KeepLogs(r.options.Out))...)
}

func (r *run) open(ctx context.Context, m *town.Ministry, tone, hears int) (*caller.Caller, error) {
	c, err := caller.Start(ctx, caller.Options{
		Chromium: r.options.Chromium, URL: m.Link(r.options.Lang, true), Dir: os.TempDir(),
		Name: m.Session, Tone: tone, Hears: hears, Log: r.options.Log,
	})
	if err == nil {
		r.report.Timeline.note(time.Now(), m.Session, r.say.opened, "")
	}
	return c, err
}

// awaitLive returns when each sees and hears the other.
func (r *run) awaitLive(ctx context.Context, agnes, bruno *caller.Caller) error {
	ctx, cancel := context.WithTimeoutCause(ctx, liveWithin, fmt.Errorf("not within %s", liveWithin))
	defer cancel()
	waiting, ctx := errgroup.WithContext(ctx)
	for _, w := range []struct {
		name string
		c    *caller.Caller
		into *caller.Media
	}{{"agnes", agnes, &r.report.Agnes}, {"bruno", bruno, &r.report.Bruno}} {
		waiting.Go(func() (err error) {
			*w.into, err = w.c.WaitLive(ctx)
			return err
		})
	}
	err := waiting.Wait()
	r.drain()
	for name, m := range map[string]caller.Media{"agnes": r.report.Agnes, "bruno": r.report.Bruno} {
		if err == nil && m.Encrypted != r.town.Encrypted {
			err = fmt.Errorf("what %s received was encrypted: %t; in this room it must be: %t", name, m.Encrypted, r.town.Encrypted)
		}
	}
	if err == nil {
		r.report.Timeline.note(time.Now(), "agnes", fmt.Sprintf(r.say.live, "bruno"), r.say.describe(r.report.Agnes))
		r.report.Timeline.note(time.Now(), "bruno", fmt.Sprintf(r.say.live, "agnes"), r.say.describe(r.report.Bruno))
	}
	return err
}

// hangUp has Agnès leave by the button and waits for the Finances' news of it.
func (r *run) hangUp(ctx context.Context, agnes *caller.Caller) (time.Duration, error) {
	type press struct {
		at  time.Time
		err error
	}
	pressing := make(chan press, 1)
	go func() {
		at, err := agnes.HangUp(ctx)
		pressing <- press{at, err}
	}()
	seen, err := r.awaitLeave(ctx, r.town.Finances, r.town.Interieur.User.UserID, leaveWithin)
	pressed := <-pressing
	if err := errors.Join(err, pressed.err); err != nil {
		return 0, err
	}
	r.report.Timeline.note(pressed.at, "agnes", r.say.hungUp, "")
	took := seen.Sub(pressed.at)
	if took >= buttonWithin {
		return took, fmt.Errorf("the button's leave was seen after %s, not within %s", took.Round(time.Millisecond), buttonWithin)
	}
	return took, nil
}

// kill kills Bruno's browser, and waits for his SFU to give him up and for the
// Intérieur's news of it. He is the last one there.
func (r *run) kill(ctx context.Context, bruno *caller.Caller) error {
	began := time.Now()
	bruno.Kill()
	r.report.Timeline.note(began, "bruno", r.say.killed, "")
	ctx, cancel := context.WithTimeoutCause(ctx, leaveWithin, fmt.Errorf("not within %s", leaveWithin))
	defer cancel()
	var given, seen time.Time
	waiting, ctx := errgroup.WithContext(ctx)
	waiting.Go(func() (err error) {
		given, err = awaitEmpty(ctx, r.town.Finances)
		return err
	})
	waiting.Go(func() (err error) {
		seen, err = r.awaitLeave(ctx, r.town.Interieur, r.town.Finances.User.UserID, leaveWithin)
		return err
	})
	if err := waiting.Wait(); err != nil {
		return err
	}
	r.report.Timeline.note(given, "bruno", r.say.givenUp, "")
	r.report.GivenUp, r.report.KillSeen = given.Sub(began), max(seen.Sub(given), 0)
	return nil
}

// awaitLeave waits until the ministry's homeserver has seen the user leave,
// and notes all news on the way.
func (r *run) awaitLeave(ctx context.Context, at *town.Ministry, user id.UserID, within time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	for {
		select {
		case n := <-r.news:
			r.note(n)
			if n.from == at && n.User == user && !n.Joined {
				return n.At, nil
			}
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s never saw %s leave: %w", at.Name, user, context.Cause(ctx))
		}
	}
}

// drain notes what has come without waiting for more.
func (r *run) drain() {
	for {
		select {
		case n := <-r.news:
			r.note(n)
		default:
			return
		}
	}
}

func (r *run) note(n news) {
	what := r.say.joined
	if !n.Joined {
		what = r.say.left
	}
	r.report.Timeline.note(n.At, n.User.Localpart(), what, fmt.Sprintf(r.say.seenBy, n.from.Name))
}

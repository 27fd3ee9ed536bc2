package chaos

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"maunium.net/go/mautrix/id"

	"passerelle/demo/member"
	"passerelle/demo/synapse"
	"passerelle/demo/timing"
	"passerelle/demo/wire"
)

// guest is one device in one call, from its join to its end. What it notes is
// read when it is done.
type guest struct {
	script
	run  *run
	user *synapse.User
	room id.RoomID

	memberID string
	delayID  string
	ticket   ticket
	// memberships are all that it had, one after the other.
	memberships []membership
	process     *member.Process
	wire        *wire.Wire

	// joins is how often it said that it is in the call.
	joins int
	// struck is when its process was killed, stopped for good, or cut off.
	struck time.Time
	// leaving is when it said itself that it leaves; zero if it never did.
	leaving time.Time
	// ejected: the SFU gave it up, so that it joined once more.
	ejected bool
	// stranded is when it began to join with a client that then gave up by
	// itself; rejoins is how often it joined once more for that.
	stranded time.Time
	rejoins  int
	heard    int
}

// membership is what says in the room that a guest is in the call.
type membership struct {
	key string
	// identities are all that it had at the SFU by it.
	identities []string
}

// outcomeWithin bounds each thing that a guest waits for: LiveKit's own
// timeout, and what a loaded machine adds.
const outcomeWithin = 90 * time.Second

// play plays the guest's part.
func (g *guest) play(ctx context.Context) (err error) {
	defer func() {
		if g.process != nil {
			g.process.Kill()
		}
		if g.wire != nil {
			g.wire.Close()
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", g, err)
		}
	}()
	if g.kind == cut {
		signalling, media, socket := g.run.home.Addresses()
		g.wire, err = wire.New(
			wire.Route{Network: "tcp", Inside: signalling, Outside: signalling},
			wire.Route{Network: "udp", Inside: media, Outside: socket})
		if err != nil {
			return err
		}
	}
	if err := g.join(ctx); err != nil {
		return err
	}
	if err := timing.Wait(ctx, g.before); err != nil {
		return err
	}
	switch g.kind {
	case tabKill:
		g.struck = time.Now()
		g.process.Kill()
		return g.awaitLeave(ctx)
	case sleep:
		g.struck = time.Now()
		if err := g.process.Freeze(); err != nil {
			return err
		}
		return g.awaitLeave(ctx)
	case reload:
		// The page is gone and loaded again; nobody says goodbye.
		g.process.Kill()
		err = g.join(ctx)
	case freeze:
		err = g.frozen(ctx)
	case cut:
		err = g.cutOff(ctx)
	}
	if err != nil {
		return err
	}
	if err := timing.Wait(ctx, g.after); err != nil {
		return err
	}
	return g.leave(ctx)
}

// maxRejoins bounds how often a person presses the button again.
const maxRejoins = 2

// join joins, once more where LiveKit's client gave up by itself: its leave
// comes then, as the SFU does not have it.
func (g *guest) join(ctx context.Context) error {
	for {
		began := time.Now()
		err := g.tryJoin(ctx)
		if !errors.Is(err, member.ErrGaveUp) || g.rejoins == maxRejoins {
			return err
		}
		g.process.Kill()
		g.stranded = began
		g.rejoins++
		if err := g.awaitLeave(ctx); err != nil {
			return err
		}
	}
}

// tryJoin is what a client does: the delayed leave first, then the membership,
// then the token, with which the focus gets the leave, then the SFU.
func (g *guest) tryJoin(ctx context.Context) error {
	if g.memberID == "" || !g.sameMember {
		g.memberID = rand.Text() // as Element Call makes one for each page
	}
	if err := g.announce(ctx); err != nil {
		return err
	}
	var in interface {
		Start(*exec.Cmd) error
	}
	if g.wire != nil {
		in = g.wire
	}
	var err error
	if g.process, err = member.Start(g.ticket.Grant, in); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, outcomeWithin)
	defer cancel()
	_, err = g.process.Await(ctx, member.Connected)
	return err
}

// announce does all of join that is not the SFU's.
func (g *guest) announce(ctx context.Context) error {
	var openID json.RawMessage
	steps := []func(context.Context) error{
		func(ctx context.Context) (err error) { openID, err = g.user.OpenIDToken(ctx); return err },
		func(ctx context.Context) (err error) {
			g.delayID, err = g.user.DelayLeave(ctx, g.room, g.membership(), g.delay)
			return err
		},
		func(ctx context.Context) error {
			return g.user.EnterCall(ctx, g.room, g.membership(), g.run.home.PublicURL)
		},
	}
	if n := len(g.memberships); n == 0 || g.memberships[n-1].key != g.stateKey() {
		g.memberships = append(g.memberships, membership{key: g.stateKey()})
	}
	for _, step := range steps {
		if err := patiently(ctx, step); err != nil {
			return fmt.Errorf("say that it is in the call: %w", err)
		}
	}
	g.joins++
	var err error
	g.ticket, err = g.run.ask(ctx, g.route, g.room, g.user.UserID, g.device(), g.memberID, openID, handover{g.delayID, g.delay})
	if err == nil {
		last := &g.memberships[len(g.memberships)-1]
		last.identities = append(last.identities, g.ticket.identity)
		g.run.presence.watch(g.ticket.room)
	}
	return err
}

// frozen stops the process for a while that is shorter than LiveKit's own
// patience; it is longer than that of a client whose signalling broke meanwhile.
func (g *guest) frozen(ctx context.Context) error {
	g.struck = time.Now()
	if err := g.process.Freeze(); err != nil {
		return err
	}
	if err := timing.Wait(ctx, freezeFor); err != nil {
		return err
	}
	if err := g.process.Thaw(); err != nil {
		return err
	}
	return g.comeBack(ctx)
}

// cutOff takes the network away and gives it back.
func (g *guest) cutOff(ctx context.Context) error {
	g.struck = time.Now()
	g.wire.Cut()
	if err := timing.Wait(ctx, cutFor); err != nil {
		return err
	}
	g.wire.Mend()
	return g.comeBack(ctx)
}

// comeBackFor is how long a guest that is back looks whether it was given up:
// it may take LiveKit a while.
const comeBackFor = 10 * time.Second

// comeBack finds out whether LiveKit has given the guest up, which is LiveKit's
// to say. If so, it joins again, as clients do that find themselves gone.
func (g *guest) comeBack(ctx context.Context) error {
	for deadline := time.Now().Add(comeBackFor); time.Now().Before(deadline); {
		if g.run.memberships.left(g.stateKey()) {
			g.ejected = true
			g.process.Kill()
			return g.join(ctx)
		}
		if err := timing.Wait(ctx, askEvery); err != nil {
			return err
		}
	}
	return nil
}

// leave ends its part as a client does.
func (g *guest) leave(ctx context.Context) error {
	g.leaving = time.Now()
	if g.kind == button {
		err := patiently(ctx, func(ctx context.Context) error { return g.user.SendDelayed(ctx, g.delayID) })
		if err != nil {
			return fmt.Errorf("send the leave: %w", err)
		}
	}
	if err := g.process.Leave(); err != nil {
		return fmt.Errorf("say goodbye: %w", err)
	}
	leaving, cancel := context.WithTimeoutCause(ctx, outcomeWithin, errors.New("the member does not leave"))
	defer cancel()
	report, err := g.process.Await(leaving, member.Leaving)
	if err != nil {
		return err
	}
	g.heard = report.Heard
	return g.awaitLeave(ctx)
}

// awaitLeave waits until the other ministry's homeserver has seen it leave, by
// all its memberships.
func (g *guest) awaitLeave(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, outcomeWithin, errors.New("it is a ghost"))
	defer cancel()
	for _, m := range g.memberships {
		for !g.run.memberships.left(m.key) {
			if err := timing.Wait(ctx, askEvery); err != nil {
				return fmt.Errorf("wait for its leave: %w", err)
			}
		}
	}
	return nil
}

// membership names the membership: it is the device's with older clients and
// their identities, the page's with newer ones.
func (g *guest) membership() string {
	if g.sameMember || g.route == legacy {
		return g.device()
	}
	return g.device() + "_" + g.memberID
}

func (g *guest) stateKey() string { return g.user.StateKey(g.membership()) }

func (g *guest) String() string {
	return fmt.Sprintf("guest %d (%s, %s)", g.number, g.kind, g.route)
}

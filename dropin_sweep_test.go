package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const sweptRoom = "!room:example.org"

// inTheCall gives a member of the room a token and has LiveKit report that
// they are connected; it returns how LiveKit knows them.
func (d *dropIn) inTheCall(user string) (connected string) {
	d.t.Helper()
	d.home.joined(sweptRoom, d.home.User(user))
	answer := d.post("/get_token", d.standalone(user))
	require.Equal(d.t, http.StatusOK, answer.status, answer.raw)
	d.connects(user)
	return roomAlias + " " + memberOf(d.home, user)
}

// connects reports a new connection of the user as LiveKit does, with a name
// of its own.
func (d *dropIn) connects(user string) {
	d.t.Helper()
	event := participantEvent("participant_joined", memberOf(d.home, user), "")
	event["participant"].(object)["sid"] = "PA_" + event["id"].(string)
	require.Equal(d.t, http.StatusOK, d.webhook(event).status)
}

// TestDropInSweep: who is not in the room any more is out of its call within
// the interval, also when they come back with the token that they still have.
func TestDropInSweep(t *testing.T) {
	d := newAppservice(t)
	d.set("LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS=1")
	d.start()
	ana, _ := d.inTheCall("ana"), d.inTheCall("bo")
	asked := len(d.home.askers())
	require.Eventually(t, func() bool { return len(d.home.askers()) >= asked+4 }, 5*time.Second, 10*time.Millisecond, "nobody is asked again")
	require.Empty(t, d.sfu.putOut())

	d.home.leaves(sweptRoom, d.home.User("ana"))
	require.Eventually(t, func() bool { return len(d.sfu.putOut()) > 0 }, 2*time.Second, 5*time.Millisecond, "still in the call")
	require.Equal(t, []string{ana}, d.sfu.putOut())

	d.connects("ana")
	require.Equal(t, []string{ana, ana}, d.sfu.putOut())
	d.home.joined(sweptRoom, d.home.User("ana"))
	d.inTheCall("ana")
	require.Len(t, d.sfu.putOut(), 2, "a new token is good")
}

// TestDropInSweepOfASilentHomeserver: what is not known puts nobody out.
func TestDropInSweepOfASilentHomeserver(t *testing.T) {
	d := newAppservice(t)
	d.set("LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS=1")
	d.start()
	ana := d.inTheCall("ana")
	d.home.fail(true)
	d.home.leaves(sweptRoom, d.home.User("ana"))
	asked := len(d.home.askers())
	require.Eventually(t, func() bool { return len(d.home.askers()) >= asked+3 }, 10*time.Second, 10*time.Millisecond, "nobody is asked again")
	require.Empty(t, d.sfu.putOut())
	d.home.fail(false)
	require.Eventually(t, func() bool { return len(d.sfu.putOut()) > 0 }, 5*time.Second, 5*time.Millisecond, "its word counts when it speaks again")
	require.Equal(t, []string{ana}, d.sfu.putOut())
}

// TestDropInSweepIsOff: 0 is never, and without a registration
// there is nobody to ask.
func TestDropInSweepIsOff(t *testing.T) {
	for name, d := range map[string]*dropIn{"0": newAppservice(t), "no registration": newDropIn(t)} {
		t.Run(name, func(t *testing.T) {
			seconds := map[string]string{"0": "0", "no registration": "1"}[name]
			d.set("LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS=" + seconds)
			d.start()
			d.inTheCall("ana")
			asked := len(d.home.askers())
			d.home.leaves(sweptRoom, d.home.User("ana"))
			twoIntervals := 2500 * time.Millisecond
			require.Never(t, func() bool { return len(d.home.askers()) != asked || len(d.sfu.putOut()) > 0 }, twoIntervals, 20*time.Millisecond)
		})
	}
}

package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	leaveV1  = "/_matrix/client/v1/rtc/livekit/delegate_delayed_leave"
	leaveNow = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/delegate_delayed_leave"
)

// handedLeave is the body of delegate_delayed_leave as a homeserver hands it over.
func (d *dropIn) handedLeave(id string, more ...object) object {
	return merged(object{"url": d.env["LIVEKIT_URL"], "room_id": "!room:example.org", "slot_id": "m.call#ROOM",
		"member_id": "M", "delay_id": id}, more)
}

// TestDropInHandedOverLeave is row 63: both bodies, each for the identity that
// its get_token gives, with the delay that the homeserver says.
func TestDropInHandedOverLeave(t *testing.T) {
	d := newAppservice(t).start()
	ana := d.home.User("ana")
	d.home.joined("!room:example.org", ana)
	older := object{"member_id": "", "member": object{"id": "O", "claimed_user_id": ana, "claimed_device_id": "DEV"}}
	for id, c := range map[string]struct {
		path, identity string
		body           object
	}{
		"newer": {leaveNow, hashed(ana, "M"), d.handedLeave("newer")},
		"older": {leaveV1, hashed(ana, "DEV", "O"), d.handedLeave("older", older)},
	} {
		d.home.shows(ana, id, "!room:example.org", 2*time.Second)
		answer := d.handOver(c.path, hsToken, ana, c.body)
		require.Equal(t, http.StatusOK, answer.status, answer.raw)
		require.Equal(t, "{}", answer.raw)
		require.Contains(t, d.home.looks(), "Bearer "+asToken+" "+ana+" "+id)
		require.Equal(t, http.StatusOK, d.webhook(participantEvent("participant_joined", c.identity, "")).status)
		require.Equal(t, "Bearer "+asToken, d.called(id, "restart", 1, 2*time.Second).authorization)
		d.called(id, "restart", 2, 3*time.Second) // at 80 % of the delay
		require.Empty(t, d.home.seen(id, "send"))
		require.Equal(t, http.StatusOK, d.webhook(participantEvent("participant_left", c.identity, "CLIENT_INITIATED")).status)
		d.called(id, "send", 1, 2*time.Second)
	}
	require.Empty(t, d.sfu.created(), "no room is made for a leave")
	require.NotContains(t, d.said.String(), asToken)
}

// TestDropInHiddenLeave: the homeserver does not show the event, so the delay
// is the client's.
func TestDropInHiddenLeave(t *testing.T) {
	d := newAppservice(t).start()
	ana := d.home.User("ana")
	d.home.joined("!room:example.org", ana)
	began := time.Now()
	answer := d.handOver(leaveNow, hsToken, ana, d.handedLeave("leave", object{"delay_timeout": 1000}))
	require.Equal(t, http.StatusOK, answer.status, answer.raw)
	require.InDelta(t, 1, d.called("leave", "send", 1, 5*time.Second).at.Sub(began).Seconds(), 0.4)

	answer = d.handOver(leaveNow, hsToken, ana, d.handedLeave("unsaid"))
	require.Equal(t, http.StatusOK, answer.status, answer.raw)
	d.silent("unsaid", "send", time.Second)
}

func TestDropInRefusedHandedOverLeave(t *testing.T) {
	d := newAppservice(t).start()
	ana, bo := d.home.User("ana"), d.home.User("bo")
	d.home.joined("!room:example.org", ana)
	d.home.shows(ana, "leave", "!room:example.org", time.Minute)
	d.home.shows(ana, "elsewhere", "!other:example.org", time.Minute)
	d.home.shows(bo, "bo's", "!room:example.org", time.Minute)
	for name, c := range map[string]struct {
		token, user string
		body        object
		status      int
		code        string
	}{
		"not joined":      {hsToken, bo, d.handedLeave("leave"), 403, "M_FORBIDDEN"},
		"foreign":         {hsToken, "@eve:other.example", d.handedLeave("leave"), 403, "M_FORBIDDEN"},
		"nobody":          {hsToken, "", d.handedLeave("leave"), 403, "M_FORBIDDEN"},
		"wrong token":     {asToken, ana, d.handedLeave("leave"), 403, "M_FORBIDDEN"},
		"no token":        {"", ana, d.handedLeave("leave"), 403, "M_FORBIDDEN"},
		"unknown ID":      {hsToken, ana, d.handedLeave("unknown"), 400, "M_INVALID_PARAM"},
		"somebody else's": {hsToken, ana, d.handedLeave("bo's"), 400, "M_INVALID_PARAM"},
		"another room's":  {hsToken, ana, d.handedLeave("elsewhere"), 400, "M_INVALID_PARAM"},
		"another SFU":     {hsToken, ana, d.handedLeave("leave", object{"url": "wss://other.example"}), 400, "M_INVALID_PARAM"},
		"no ID":           {hsToken, ana, d.handedLeave(""), 400, "M_BAD_JSON"},
		"an ID of dots":   {hsToken, ana, d.handedLeave(".."), 400, "M_BAD_JSON"},
	} {
		answer := d.handOver(leaveNow, c.token, c.user, c.body)
		require.Equal(t, c.status, answer.status, "%s: %s", name, answer.raw)
		require.Equal(t, c.code, answer.body["errcode"], name)
	}
	d.silent("leave", "restart", 300*time.Millisecond)
}

// TestDropInPing: the homeserver's own question, in nobody's name.
func TestDropInPing(t *testing.T) {
	d := newAppservice(t).start()
	ping := object{"transaction_id": "t1"}
	answer := d.handOver("/_matrix/app/v1/ping", hsToken, "-", ping)
	require.Equal(t, http.StatusOK, answer.status)
	require.Equal(t, "{}", answer.raw)
	for _, token := range []string{"", "wrong", asToken} {
		answer := d.handOver("/_matrix/app/v1/ping", token, "-", ping)
		require.Equal(t, http.StatusForbidden, answer.status)
		require.Equal(t, "M_FORBIDDEN", answer.body["errcode"])
	}
}

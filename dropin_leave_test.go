package main

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDropInLeaveUnresolvable is row 33: without the client API of the user's
// server nothing is taken over, and no room is made.
func TestDropInLeaveUnresolvable(t *testing.T) {
	d := newDropIn(t)
	d.home.noClientAPI()
	d.start()
	for route, body := range map[string]object{
		"/sfu/get": d.legacy("ana"), "/get_token": d.standalone("ana"), "/delegate_delayed_leave": d.standalone("ana"),
	} {
		answer := d.post(route, merged(body, []object{delay("leave", time.Minute)}))
		require.Equal(t, http.StatusBadRequest, answer.status, route)
		require.Equal(t, "M_BAD_JSON", answer.body["errcode"])
	}
	require.Empty(t, d.sfu.created())
}

// TestDropInClientAPIOverride: the listed address is used, and nothing looked up.
func TestDropInClientAPIOverride(t *testing.T) {
	d := newDropIn(t)
	d.home.noClientAPI()
	d.set("LIVEKIT_CS_API_URL_OVERRIDES=other.example=http://127.0.0.1:1 , " + d.home.Name() + "=https://" + d.home.Name())
	d.start()
	d.delegate("ana", "leave", 500*time.Millisecond)
	d.called("leave", "send", 1, 5*time.Second)
}

// TestDropInLeaveWaits is row 34: who never connects is said to have left
// exactly when the delay is over, however short it is.
func TestDropInLeaveWaits(t *testing.T) {
	d := newDropIn(t).start()
	for id, timeout := range map[string]time.Duration{"short": 500 * time.Millisecond, "longer": 2 * time.Second} {
		began := time.Now()
		d.delegate("ana", id, timeout)
		sent := d.called(id, "send", 1, timeout+3*time.Second).at.Sub(began)
		require.GreaterOrEqual(t, sent, timeout)
		require.Empty(t, d.home.seen(id, "restart"))
		d.stays(id, "send", 1, 100*time.Millisecond)
	}
}

// TestDropInLeaveTokenRoutes: the deprecated way, by the token routes.
func TestDropInLeaveTokenRoutes(t *testing.T) {
	d := newDropIn(t).start()
	require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana", delay("legacy", time.Minute))).status)
	require.Equal(t, http.StatusOK, d.post("/get_token", d.standalone("bo", delay("standalone", time.Minute))).status)
	legacy := d.home.User("ana") + ":DEV"
	for _, name := range []string{"participant_joined", "participant_left"} {
		require.Equal(t, http.StatusOK, d.webhook(participantEvent(name, legacy, "CLIENT_INITIATED")).status)
		d.event(name, "bo", "CLIENT_INITIATED")
		for _, id := range []string{"legacy", "standalone"} {
			d.called(id, map[string]string{"participant_joined": "restart", "participant_left": "send"}[name], 1, 2*time.Second)
		}
	}
}

// TestDropInLeaveOfLegacyIdentity is row 52: who joined by the legacy route is
// recognised, too.
func TestDropInLeaveOfLegacyIdentity(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "leave", time.Minute)
	require.Equal(t, http.StatusOK, d.webhook(participantEvent("participant_joined", d.home.User("ana")+":DEV", "")).status)
	d.called("leave", "restart", 1, 2*time.Second)
}

// TestDropInLeaveFindsParticipant is row 35: asked for at once, then after a
// second, until the participant is there.
func TestDropInLeaveFindsParticipant(t *testing.T) {
	d := newDropIn(t).start()
	d.sfu.set(roomAlias, memberOf(d.home, "ana"), true)
	began := time.Now()
	d.delegate("ana", "leave", time.Minute)
	require.Less(t, d.called("leave", "restart", 1, 2*time.Second).at.Sub(began), time.Second)

	d.delegate("bo", "later", time.Minute)
	d.sfu.set(roomAlias, memberOf(d.home, "bo"), true)
	d.called("later", "restart", 1, 4*time.Second)
}

// TestDropInLeaveByWebhook: the join alone connects, and restarts at once.
func TestDropInLeaveByWebhook(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "leave", 4*time.Second)
	joined := time.Now()
	d.event("participant_joined", "ana", "")
	first := d.called("leave", "restart", 1, 2*time.Second).at
	require.Less(t, first.Sub(joined), time.Second)
	// 80 % of the delay after each success.
	second := d.called("leave", "restart", 2, 5*time.Second).at
	require.InDelta(t, 3.2, second.Sub(first).Seconds(), 0.5)
	// Nobody is declared gone because the SFU does not list them.
	require.Empty(t, d.home.seen("leave", "send"))
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("leave", "send", 1, 2*time.Second)
}

// TestDropInLeaveShortDelay: half a second is taken, and restarted in time.
func TestDropInLeaveShortDelay(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "leave", 500*time.Millisecond)
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 4, 3*time.Second)
	require.Empty(t, d.home.seen("leave", "send"))
}

// TestDropInLeaveIntended: final, even if the SFU still lists the participant.
func TestDropInLeaveIntended(t *testing.T) {
	d := newDropIn(t).start()
	d.sfu.set(roomAlias, memberOf(d.home, "ana"), true)
	d.delegate("ana", "leave", time.Minute)
	d.called("leave", "restart", 1, 2*time.Second)
	left := time.Now()
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	require.Less(t, d.called("leave", "send", 1, 2*time.Second).at.Sub(left), 1500*time.Millisecond)
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.stays("leave", "send", 1, 300*time.Millisecond)
}

// TestDropInLeaveConfirmed is rows 38 and 51: for other reasons the SFU is
// asked; one that does not answer confirms.
func TestDropInLeaveConfirmed(t *testing.T) {
	d := newDropIn(t).start()
	for _, user := range []string{"gone", "unanswered", "back"} {
		d.delegate(user, user, time.Minute)
		d.event("participant_joined", user, "")
		d.called(user, "restart", 1, 2*time.Second)
	}
	d.sfu.set(roomAlias, memberOf(d.home, "back"), true)
	d.event("participant_left", "back", "DUPLICATE_IDENTITY")
	d.event("participant_left", "gone", "SIGNAL_CLOSE")
	d.called("gone", "send", 1, 2*time.Second)
	d.sfu.fail(true)
	d.event("participant_left", "unanswered", "")
	d.called("unanswered", "send", 1, 7*time.Second)
	require.Empty(t, d.home.seen("back", "send"), "who is back has not left")
}

// TestDropInLeaveAborted is row 36: who never came does not leave.
func TestDropInLeaveAborted(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "leave", 1500*time.Millisecond)
	d.event("participant_connection_aborted", "ana", "JOIN_FAILURE")
	d.silent("leave", "send", 2500*time.Millisecond)
}

// TestDropInLeaveGone is rows 41 and 42.
func TestDropInLeaveGone(t *testing.T) {
	d := newDropIn(t).start()
	d.home.status("restart", http.StatusNotFound)
	d.delegate("ana", "no-restart", 2*time.Second)
	d.event("participant_joined", "ana", "")
	d.called("no-restart", "restart", 1, 2*time.Second)
	d.silent("no-restart", "send", 2500*time.Millisecond)
	require.Len(t, d.home.seen("no-restart", "restart"), 1)
	for user, status := range map[string]int{"bo": http.StatusNotFound, "cleo": http.StatusConflict} {
		d.home.status("send", status)
		d.delegate(user, user, time.Minute)
		d.event("participant_joined", user, "")
		d.called(user, "restart", 1, 2*time.Second)
		d.event("participant_left", user, "CLIENT_INITIATED")
		d.called(user, "send", 1, 2*time.Second)
		// The first pause before another try would be half of that at most.
		d.stays(user, "send", 1, 2*time.Second)
	}
}

// TestDropInLeaveRetries is rows 43 and 44.
func TestDropInLeaveRetries(t *testing.T) {
	d := newDropIn(t).start()
	failing := 0
	d.home.answers(func(c delayedCall, w http.ResponseWriter) bool {
		if c.action != "send" || len(d.home.seen(c.id, "send")) > 1 {
			return false
		}
		failing++
		if c.id == "limited" {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusTooManyRequests)
		} else {
			w.WriteHeader(http.StatusBadGateway)
		}
		return true
	})
	for _, id := range []string{"limited", "broken"} {
		d.delegate(id, id, time.Minute)
		d.event("participant_joined", id, "")
		d.called(id, "restart", 1, 2*time.Second)
		d.event("participant_left", id, "CLIENT_INITIATED")
		first := d.called(id, "send", 1, 2*time.Second).at
		second := d.called(id, "send", 2, 6*time.Second).at
		if id == "limited" {
			require.GreaterOrEqual(t, second.Sub(first), 2*time.Second)
		} else {
			require.InDelta(t, 1, second.Sub(first).Seconds(), 0.9)
		}
	}
	require.Equal(t, 2, failing)
}

// TestDropInLeaveReplaced is rows 45 and 46: the newest counts, and each
// participant is one.
func TestDropInLeaveReplaced(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "old", time.Second)
	d.delegate("ana", "new", time.Minute)
	d.delegate("bo", "other", time.Minute)
	d.event("participant_joined", "ana", "")
	d.event("participant_joined", "bo", "")
	d.called("new", "restart", 1, 2*time.Second)
	d.called("other", "restart", 1, 2*time.Second)
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("new", "send", 1, 2*time.Second)
	d.silent("other", "send", 1200*time.Millisecond)
	require.Empty(t, d.home.seen("old", "restart"))
	require.Empty(t, d.home.seen("old", "send"))
}

// TestDropInLeaveSanityCheck is row 39: with the interval, one who is missed
// has left; an SFU that does not answer says nothing.
func TestDropInLeaveSanityCheck(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS=1").start()
	d.sfu.set(roomAlias, memberOf(d.home, "ana"), true)
	d.delegate("ana", "leave", time.Minute)
	d.called("leave", "restart", 1, 2*time.Second)
	d.sfu.fail(true)
	d.silent("leave", "send", 2500*time.Millisecond)
	d.sfu.fail(false)
	d.sfu.set(roomAlias, memberOf(d.home, "ana"), false)
	d.called("leave", "send", 1, 4*time.Second)
}

// TestDropInLeaveWithoutSanityCheck: who joined by a webhook is not declared
// gone because a look-up says so within the first seconds.
func TestDropInLeaveWithoutSanityCheck(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "leave", time.Minute)
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 1, 2*time.Second)
	d.silent("leave", "send", 5200*time.Millisecond)
}

// TestDropInLeaveEscapes is row 53: the ID of an event stays one segment.
func TestDropInLeaveEscapes(t *testing.T) {
	d := newDropIn(t).start()
	const id = "a/../b?c#d"
	d.delegate("ana", id, 500*time.Millisecond)
	require.Eventually(t, func() bool {
		d.home.mu.Lock()
		defer d.home.mu.Unlock()
		return len(d.home.calls) > 0
	}, 5*time.Second, 10*time.Millisecond)
	call := d.home.calls[0]
	require.Equal(t, id, call.id)
	require.True(t, strings.HasSuffix(call.escaped, "/delayed_events/a%2F..%2Fb%3Fc%23d/send"), call.escaped)
	require.Empty(t, call.authorization)
}

// TestDropInWebhooks is rows 49 and 50 and the shapes that are taken.
func TestDropInWebhooks(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "leave", time.Minute)
	joined := participantEvent("participant_joined", memberOf(d.home, "ana"), "")
	unsigned := func(r *http.Request) { r.Header.Del("Authorization") }
	changed := func(r *http.Request) { r.Body = http.NoBody; r.ContentLength = 0 }
	same := func(*http.Request) {}
	require.Equal(t, 401, d.webhookSigned(joined, dropInKey, strings.Repeat("x", 32), "application/webhook+json", same).status)
	require.Equal(t, 401, d.webhookSigned(joined, "other", dropInSecret, "application/webhook+json", same).status)
	require.Equal(t, 401, d.webhookSigned(joined, dropInKey, dropInSecret, "application/webhook+json", unsigned).status)
	require.Equal(t, 401, d.webhookSigned(joined, dropInKey, dropInSecret, "application/webhook+json", changed).status)
	require.Equal(t, 200, d.webhook(object{"event": "egress_started", "id": "EV_1", "egressInfo": object{"egressId": "EG_1"}}).status)
	require.Equal(t, 405, d.send("GET", "/sfu_webhook", nil).status)
	d.silent("leave", "restart", 300*time.Millisecond)

	for i, created := range []any{0, "0", 1793000123, "1793000123", nil} {
		id := "leave-" + strconv.Itoa(i)
		d.delegate("ana", id, time.Minute)
		event := participantEvent("participant_joined", memberOf(d.home, "ana"), "")
		event["createdAt"], event["unknown"] = created, object{"x": 1}
		if created == nil {
			delete(event, "createdAt")
		}
		answer := d.webhookSigned(event, dropInKey, dropInSecret, "application/json", same)
		require.Equal(t, 200, answer.status)
		d.called(id, "restart", 1, 2*time.Second)
		d.event("participant_left", "ana", "CLIENT_INITIATED")
		d.called(id, "send", 1, 2*time.Second)
	}
}

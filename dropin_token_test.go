package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/federation/federationtest"
)

// TestDropInToken is rows 19 to 24: what a full-access user is given, by both
// routes, with the one call that makes the room.
func TestDropInToken(t *testing.T) {
	d := newDropIn(t).start()
	legacy := d.post("/sfu/get", d.legacy("ana"))
	standalone := d.post("/get_token", d.standalone("ana"))
	for _, c := range []struct {
		answer   reply
		identity string
	}{{legacy, d.home.User("ana") + ":DEV"}, {standalone, memberOf(d.home, "ana")}} {
		require.Equal(t, http.StatusOK, c.answer.status, c.answer.raw)
		requireCORS(t, c.answer)
		require.Equal(t, d.env["LIVEKIT_URL"], c.answer.body["url"])
		require.Len(t, c.answer.body, 2)
		claims := d.claims(c.answer.body["jwt"].(string))
		require.Equal(t, dropInKey, claims["iss"])
		require.Equal(t, c.identity, claims["sub"])
		require.NotContains(t, claims, "aud")
		require.InDelta(t, time.Now().Unix(), claims["nbf"], 5)
		require.InDelta(t, 3600, claims["exp"].(float64)-claims["nbf"].(float64), 0.1)
		video := claims["video"].(object)
		require.Equal(t, roomAlias, video["room"])
		for name, want := range map[string]bool{"roomJoin": true, "canPublish": true, "canSubscribe": true, "canUpdateOwnMetadata": false} {
			require.Equal(t, want, video[name], name)
		}
		require.NotContains(t, video, "roomCreate")
		require.NotContains(t, video, "hidden")
	}
	require.Equal(t, 2, d.home.Requests())
	rooms := d.sfu.created()
	require.Len(t, rooms, 2, "one for each token")
	for _, room := range rooms {
		require.Equal(t, roomAlias, room.Name)
		require.EqualValues(t, 300, room.EmptyTimeout)
		require.EqualValues(t, 20, room.DepartureTimeout)
		require.Zero(t, room.MaxParticipants)
	}
	require.Empty(t, d.sfu.others)
	require.Empty(t, d.sfu.lookedUp())
}

func TestDropInMetadataGrant(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_CAN_UPDATE_OWN_METADATA=true").start()
	answer := d.post("/get_token", d.standalone("ana"))
	require.Equal(t, true, d.claims(answer.body["jwt"].(string))["video"].(object)["canUpdateOwnMetadata"])
}

// TestDropInAddressStaysAsItIs: byte for byte, path and slash included.
func TestDropInAddressStaysAsItIs(t *testing.T) {
	d := newDropIn(t)
	address := strings.Replace(d.sfu.url(), "127.0.0.1", "LocalHost", 1) + "/"
	d.set("LIVEKIT_URL=" + address)
	d.start()
	answer := d.post("/sfu/get", d.legacy("ana"))
	require.Equal(t, http.StatusOK, answer.status, answer.raw)
	require.Equal(t, address, answer.body["url"])
}

// TestDropInSlotsAreOpaque: two slots are two rooms; nothing after # is a slot.
func TestDropInSlotsAreOpaque(t *testing.T) {
	d := newDropIn(t).start()
	for _, slot := range []string{"m.call#", "m.call#ROOM", "m.call#room", "<&>"} {
		answer := d.post("/get_token", d.standalone("ana", object{"slot_id": slot}))
		require.Equal(t, http.StatusOK, answer.status, answer.raw)
		require.Equal(t, hashed("!room:example.org", slot), d.claims(answer.body["jwt"].(string))["video"].(object)["room"])
	}
}

// TestDropInSameTokenAgain: Element Call comes with one OpenID token twice.
func TestDropInSameTokenAgain(t *testing.T) {
	d := newDropIn(t).start()
	body := d.legacy("ana")
	require.Equal(t, http.StatusOK, d.post("/sfu/get", body).status)
	require.Equal(t, http.StatusOK, d.post("/sfu/get", merged(body, []object{delay("leave", time.Hour)})).status)
	require.Equal(t, http.StatusOK, d.post("/sfu/get", merged(body, []object{delay("leave-2", time.Minute)})).status)
	require.Equal(t, 3, d.home.Requests())
	other := d.post("/get_token", d.standalone("ana", object{"openid_token": body["openid_token"], "room_id": "!other:example.org"}))
	require.Equal(t, http.StatusOK, other.status, "it is good for as long as its homeserver says so")
	require.Len(t, d.sfu.created(), 4)
}

// TestDropInUnauthorized is rows 15 to 17: one answer for all, one question
// for each, however often the homeserver fails.
func TestDropInUnauthorized(t *testing.T) {
	d := newDropIn(t).start()
	var texts []string
	refused := func(route string, body object) {
		t.Helper()
		before := d.home.Requests()
		answer := d.post(route, body)
		require.Equal(t, http.StatusUnauthorized, answer.status, answer.raw)
		require.Equal(t, "M_UNAUTHORIZED", answer.body["errcode"])
		require.Equal(t, before+1, d.home.Requests())
		requireCORS(t, answer)
		texts = append(texts, answer.raw)
	}
	for _, route := range dropInRoutes {
		body := func(user string) object {
			if route == "/sfu/get" {
				return d.legacy(user)
			}
			return d.standalone(user, delay("leave", time.Minute))
		}
		unknown := body("ana")
		unknown["openid_token"].(object)["access_token"] = "unknown"
		refused(route, unknown)
		foreign := body("ana")
		foreign["openid_token"].(object)["access_token"] = d.home.IssueTo("@ana:other.example")
		refused(route, foreign)
		if route != "/sfu/get" {
			other := body("ana")
			other["member"].(object)["claimed_user_id"] = d.home.User("bo")
			refused(route, other)
		}
	}
	d.home.Misbehave(func(_ *federationtest.Homeserver, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	})
	for range 12 {
		refused("/sfu/get", d.legacy("ana"))
	}
	d.home.Misbehave(nil)
	require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana")).status, "as soon as it is back")
	unreachable := d.legacy("ana")
	unreachable["openid_token"].(object)["matrix_server_name"] = "127.0.0.1:1"
	answer := d.post("/sfu/get", unreachable)
	require.Equal(t, http.StatusUnauthorized, answer.status)
	for _, text := range append(texts, answer.raw) {
		require.Equal(t, texts[0], text)
	}
}

// TestDropInCertificates is row 18: only the whole phrase switches it off.
func TestDropInCertificates(t *testing.T) {
	for value, status := range map[string]int{"": 401, "true": 401, "yes_i_know_what_i_am_doing": 401, "YES_I_KNOW_WHAT_I_AM_DOING": 200} {
		d := newDropIn(t)
		d.home = newDelayedEvents(t, federationtest.UnknownAuthority)
		d.set("LIVEKIT_INSECURE_SKIP_VERIFY_TLS="+value, "LIVEKIT_FULL_ACCESS_HOMESERVERS=*")
		d.start()
		answer := d.post("/get_token", d.standalone("ana"))
		require.Equal(t, status, answer.status, value)
		if status == 200 {
			d.delegate("ana", "leave", 500*time.Millisecond)
			d.called("leave", "send", 1, 5*time.Second)
		}
	}
}

// TestDropInRestricted is rows 25 to 27 and 29: users of servers that are not
// listed are asked for, and served as those who may only watch; delegation is
// refused to them after the look-up.
func TestDropInRestricted(t *testing.T) {
	for _, list := range []string{"other.example", "*, other.example", "127.0.0.1", "*.0.0.1"} {
		d := newDropIn(t, "LIVEKIT_FULL_ACCESS_HOMESERVERS="+list).start()
		for _, answer := range []reply{d.post("/sfu/get", d.legacy("ana")), d.post("/get_token", d.standalone("ana"))} {
			require.Equal(t, http.StatusOK, answer.status, answer.raw)
			require.Equal(t, d.env["LIVEKIT_URL"], answer.body["url"])
			video := d.claims(answer.body["jwt"].(string))["video"].(object)
			require.Equal(t, false, video["canPublish"], list)
			require.Equal(t, true, video["canSubscribe"])
		}
		for route, body := range map[string]object{"/sfu/get": d.legacy("ana"), "/get_token": d.standalone("ana")} {
			before := d.home.Requests()
			answer := d.post(route, merged(body, []object{delay("leave", time.Minute)}))
			require.Equal(t, http.StatusBadRequest, answer.status)
			require.Equal(t, "M_BAD_JSON", answer.body["errcode"], "Element Call asks again without the delay")
			require.Equal(t, before+1, d.home.Requests())
		}
		answer := d.post("/delegate_delayed_leave", d.standalone("ana", delay("leave", time.Minute)))
		require.Equal(t, http.StatusForbidden, answer.status)
		require.Equal(t, "M_FORBIDDEN", answer.body["errcode"])
		require.Empty(t, d.sfu.created())
		require.Equal(t, 5, d.home.Requests())
	}
}

func TestDropInEverybodyHasFullAccess(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_FULL_ACCESS_HOMESERVERS= * ").start()
	answer := d.post("/sfu/get", d.legacy("ana"))
	require.Equal(t, true, d.claims(answer.body["jwt"].(string))["video"].(object)["canPublish"])
	require.Len(t, d.sfu.created(), 1)
}

// TestDropInServerNamesAreComparedWhole: the port is part of the name.
func TestDropInServerNamesAreComparedWhole(t *testing.T) {
	d := newDropIn(t).start()
	answer := d.post("/sfu/get", d.legacy("ana"))
	require.Equal(t, fmt.Sprintf("@ana:127.0.0.1:%s:DEV", d.home.Port()), d.claims(answer.body["jwt"].(string))["sub"])
	require.Zero(t, d.home.WellKnownRequests(), "an address needs no document")
}

// TestDropInWithoutSFU is row 28: no token without a room, but delegation.
func TestDropInWithoutSFU(t *testing.T) {
	d := newDropIn(t).start()
	d.sfu.fail(true)
	answer := d.post("/get_token", d.standalone("ana"))
	require.Equal(t, http.StatusInternalServerError, answer.status)
	require.Equal(t, "M_UNKNOWN", answer.body["errcode"])
	require.NotContains(t, answer.raw, "127.0.0.1")
	d.delegate("ana", "leave", time.Second)
	d.called("leave", "send", 1, 5*time.Second)
}

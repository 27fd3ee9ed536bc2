package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"

	"passerelle/demo/intruder"
)

// revoke is what an operator does.
func (i *instance) revoke(user string) {
	i.t.Helper()
	body := fmt.Sprintf(`{"user_id": %q, "room_id": "!r:hs", "reason": "test"}`, i.home.User(user))
	answer, err := http.Post("http://"+i.private+"/admin/revoke", "application/json", strings.NewReader(body))
	require.NoError(i.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(i.t, err)
	require.Equal(i.t, http.StatusOK, answer.StatusCode, "%s", text)
	require.JSONEq(i.t, `{"revoked": 1}`, string(text))
}

// like signs what LiveKit would make of the refreshed token now.
func like(t *testing.T, i *instance, refreshed string, keepTerm bool) string {
	t.Helper()
	id, secret := i.key()
	parsed, err := auth.ParseAPIToken(refreshed)
	require.NoError(t, err)
	_, grants, err := parsed.Verify(secret)
	require.NoError(t, err)
	if !keepTerm {
		grants.Video.DestinationRoom = ""
	}
	token, err := auth.NewAccessToken(id, secret).SetIdentity(grants.Identity).SetVideoGrant(grants.Video).
		SetValidFor(24 * time.Hour).ToJWT()
	require.NoError(t, err)
	return token
}

// TestWhoWasRemovedStaysOut is the door's promise, kept against the real SFU:
// whoever was removed from a call does not come back with anything that they
// have, however they try; and comes back at once when they may again.
//
// It tries for some seconds. PASSERELLE_SOAK=10m makes that ten minutes.
func TestWhoWasRemovedStaysOut(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	duration := siegeTime(t)
	i := newInstance(t)
	i.start()
	base := "http://" + i.public
	ways, client := intruder.Ways(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	bo, ana := join(t, i, "bo"), join(t, i, "ana")
	bo.hear(t, time.Now())
	_, original := i.token("eve")
	for _, way := range ways {
		require.Equal(t, !way.Always, intruder.Admitted(way.Try(client, base, original)), "before: %s", way.Name)
	}
	direct := fmt.Sprintf("http://127.0.0.1:%d", i.sfuPort)
	for _, way := range ways {
		require.False(t, intruder.Admitted(way.Try(client, direct, original)), "at the SFU itself: %s", way.Name)
	}
	eve := signalling(t, base, original)
	require.True(t, intruder.Admitted(ways[0].Try(client, base, eve.Refreshed)), "what LiveKit made admits")
	eve = signalling(t, base, eve.Refreshed)

	revoked := time.Now()
	i.revoke("eve")
	t.Logf("revoked in %s", time.Since(revoked).Round(100*time.Microsecond))
	t.Logf("cut %s after the revocation began", (<-eve.Ended).Sub(revoked).Round(100*time.Microsecond))
	i.revoke("ana")
	select {
	case reason := <-ana.goodbye:
		require.Equal(t, livekit.DisconnectReason_PARTICIPANT_REMOVED, reason)
	case <-time.After(patience):
		t.Fatal("ana is still in the call")
	}

	s := &intruder.Siege{}
	tokens := map[string]string{
		"the original": original, "LiveKit's": eve.Refreshed,
		"one like LiveKit's": like(t, i, eve.Refreshed, true), "one without a term": like(t, i, eve.Refreshed, false),
	}
	restarts := hold(t, i, s, client, base, tokens, duration)
	require.Empty(t, s.Inside())
	t.Logf("%s in %s, with %d restarts", s, duration, restarts)
	require.Equal(t, []string{string(identityOf(t, i, bo))}, present(t, i), "at the SFU there is bo and nobody else")

	// Given again: in at once, and what is older stays worthless.
	asked := time.Now()
	_, fresh := i.token("eve")
	again := signalling(t, base, fresh)
	t.Logf("granted again and inside after %s", time.Since(asked).Round(time.Millisecond))
	delete(tokens, "one without a term") // LiveKit's key made it after the revocation
	s.Try(client, base, tokens)
	require.Empty(t, s.Inside())
	require.True(t, intruder.Admitted(ways[0].Try(client, base, again.Refreshed)), "and so does what LiveKit makes of it")
}

// siegeTime is some seconds, or PASSERELLE_SOAK.
func siegeTime(t *testing.T) time.Duration {
	t.Helper()
	soak := os.Getenv("PASSERELLE_SOAK")
	if soak == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(soak)
	require.NoError(t, err)
	return d
}

// signalling enters and keeps the connection until the test's end.
func signalling(t *testing.T, base, token string) *intruder.Signalling {
	t.Helper()
	s, err := intruder.Connect(t.Context(), base, token)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// hold besieges the instance for a time, and returns how often Passerelle or
// the SFU was killed meanwhile, in turns.
func hold(t *testing.T, i *instance, s *intruder.Siege, client *http.Client, base string, tokens map[string]string, d time.Duration) int {
	t.Helper()
	over := time.Now().Add(d)
	var trying sync.WaitGroup
	for range 2 {
		trying.Go(func() {
			for time.Now().Before(over) {
				s.Try(client, base, tokens)
				time.Sleep(d / 600) // leaves the machine to others
			}
		})
	}
	kills := 0
	for pause := max(d/20, time.Second); time.Now().Add(pause).Before(over); kills++ {
		time.Sleep(pause)
		if kills%2 == 0 {
			i.kill()
			i.start()
		} else {
			require.NoError(t, syscall.Kill(i.sfu(), syscall.SIGKILL))
		}
	}
	trying.Wait()
	require.Greater(t, kills, 1)
	return kills
}

func identityOf(t *testing.T, i *instance, p *participant) string {
	t.Helper()
	require.Eventually(t, func() bool { return len(present(t, i)) == 1 }, 20*time.Second, 100*time.Millisecond, "%s is not back", p.name)
	return p.room.LocalParticipant.Identity()
}

// present asks the SFU itself who is in the call.
func present(t *testing.T, i *instance) []string {
	t.Helper()
	id, secret := i.key()
	ask := func(method, body string, grant *auth.VideoGrant) []byte {
		token, err := auth.NewAccessToken(id, secret).SetVideoGrant(grant).SetValidFor(time.Minute).ToJWT()
		require.NoError(t, err)
		r, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/twirp/livekit.RoomService/%s", i.sfuPort, method), strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return text
	}
	var rooms struct{ Rooms []struct{ Name string } }
	_ = json.Unmarshal(ask("ListRooms", "{}", &auth.VideoGrant{RoomList: true}), &rooms)
	var names []string
	for _, room := range rooms.Rooms {
		var answer struct{ Participants []struct{ Identity string } }
		_ = json.Unmarshal(ask("ListParticipants", fmt.Sprintf(`{"room": %q}`, room.Name),
			&auth.VideoGrant{RoomAdmin: true, Room: room.Name}), &answer)
		for _, p := range answer.Participants {
			names = append(names, p.Identity)
		}
	}
	return names
}

// TestDirectSignallingRemovesAgain is what is left of that promise where
// clients reach the SFU without the door: they come in, and are put out.
func TestDirectSignallingRemovesAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	i := newInstanceWith(t, func(i *instance, port, udp int) string {
		return fmt.Sprintf(`{signalling: direct, public_url: "ws://127.0.0.1:%d", embedded: {port: %[1]d, udp_port: %d, tcp_port: 0,
			node_ip: 127.0.0.1, loopback: true, orphan_timeout: 20s}}`, port, udp)
	})
	i.start()
	address, jwt := i.token("ana")
	require.Equal(t, fmt.Sprintf("ws://127.0.0.1:%d", i.sfuPort), address)
	enter := func() (chan lksdk.DisconnectionReason, error) {
		goodbye := make(chan lksdk.DisconnectionReason, 1)
		// Being put out may come before the SDK has given us the room.
		room, err := lksdk.ConnectToRoomWithToken(address, jwt, &lksdk.RoomCallback{
			OnDisconnectedWithReason: func(reason lksdk.DisconnectionReason) { goodbye <- reason },
		})
		if err == nil {
			t.Cleanup(room.Disconnect)
		}
		return goodbye, err
	}
	removed := func(goodbye chan lksdk.DisconnectionReason) {
		select {
		case reason := <-goodbye:
			require.Equal(t, lksdk.ParticipantRemoved, reason)
		case <-time.After(patience):
			t.Fatal("still in the call")
		}
	}
	first, err := enter()
	require.NoError(t, err)
	i.revoke("ana")
	removed(first)
	began := time.Now()
	second, _ := enter() // fails if she is put out before she is in
	removed(second)
	t.Logf("in with the old token and out again within %s", time.Since(began).Round(time.Millisecond))

	_, jwt = i.token("ana")
	again, err := enter()
	require.NoError(t, err)
	require.Never(t, func() bool { return len(again) > 0 }, time.Second, 20*time.Millisecond, "she may be here")
}

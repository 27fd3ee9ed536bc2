package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
)

const (
	// proxiedRoute is what the homeserver hands over of its clients (MSC4195).
	proxiedRoute = "/_matrix/client/v1/rtc/livekit/get_token"
	// userHeader is where it says who asks (MSC4512).
	userHeader = "X-Matrix-User-Identifier"
	// proxiedAim is what a token may cost us, in milliseconds of processor time at
	// proxiedAimAt connections.
	proxiedAim, proxiedAimAt = 0.12, 16
)

// isJoined is the question whether a user is in a room (MSC4502).
func isJoined(room, user string) string {
	return "/_matrix/client/unstable/io.element.msc4502/rooms/" + url.PathEscape(room) + "/is_joined?mxid=" + url.QueryEscape(user)
}

// measureProxied prints what a token through the homeserver costs us, and then
// what it costs a real homeserver.
func (b *bench) measureProxied(ctx context.Context) error {
	bare, err := startBare(ctx, b.world)
	if err != nil {
		return err
	}
	defer bare.stop()
	printHead()
	var atAim float64
	asked, questions := b.world.asked.Load(), b.world.questions.Load()
	for _, connections := range atOnce {
		cpu, err := b.measureRoute(ctx, bare, proxiedRoute, connections)
		if err != nil {
			return err
		}
		if connections == proxiedAimAt {
			atAim = cpu
		}
	}
	asked, questions = b.world.asked.Load()-asked, b.world.questions.Load()-questions
	verdict := "met"
	if atAim > proxiedAim {
		verdict = "missed"
	}
	fmt.Printf("\n%.2f questions to the homeserver for each token; %.3f ms of our processor at %d connections, the aim of %.2f is %s\n",
		float64(questions)/float64(asked), atAim, proxiedAimAt, proxiedAim, verdict)
	return b.measureSynapse(ctx, atAim)
}

// proxiedRequest is one as the homeserver hands it over for one of its users. No
// user asks for the same room again soon: Passerelle believes for some seconds
// what it was told.
func (s *stubs) proxiedRequest(p *process) (header string, body []byte) {
	n := int(s.asked.Add(1))
	user, room := fmt.Sprintf("@u%d:%s", n%users, s.name), "!r"+strconv.Itoa((n+n/users)%rooms)+":bench"
	return "Authorization: Bearer " + hsToken + "\r\n" + userHeader + ": " + user + "\r\n", proxiedBody(p, room)
}

// proxiedBody asks for a token for a room at the process' SFU.
func proxiedBody(p *process, room string) []byte {
	return fmt.Appendf(nil, `{"url":"ws%s","room_id":%q,"slot_id":"m.call#ROOM","member_id":"member"}`, p.address[len("http"):], room)
}

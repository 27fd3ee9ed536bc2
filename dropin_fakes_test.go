package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"passerelle/federation/federationtest"
)

// delayedEvents is the part of a homeserver that keeps delayed events
// (MSC4140), with answers that the test decides.
type delayedEvents struct {
	*federationtest.Homeserver

	mu      sync.Mutex
	calls   []delayedCall
	answer  func(c delayedCall, w http.ResponseWriter) bool
	members map[string]bool // answers of is_joined, by "room user"
	asked   []string        // tokens with which is_joined was asked
	hidden  bool            // no .well-known/matrix/client
	away    bool            // is_joined fails
	// scheduled are the delayed events that the application service may look
	// at, by "user id"; while it is nil it may look at none.
	scheduled map[string]object
	lookedAt  []string // "token user id"
}

type delayedCall struct {
	id, action, authorization string
	escaped                   string // the path as it was sent
	at                        time.Time
}

func newDelayedEvents(t *testing.T, certificate federationtest.Certificate) *delayedEvents {
	t.Helper()
	d := &delayedEvents{Homeserver: federationtest.New(t, certificate), members: map[string]bool{}}
	d.Handle("GET /.well-known/matrix/client", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		hidden := d.hidden
		d.mu.Unlock()
		if hidden {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"m.homeserver": map[string]string{"base_url": "https://" + d.Name() + "/"}})
	})
	d.Handle("POST /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{id}/{action}", func(w http.ResponseWriter, r *http.Request) {
		c := delayedCall{r.PathValue("id"), r.PathValue("action"), r.Header.Get("Authorization"), r.URL.EscapedPath(), time.Now()}
		d.mu.Lock()
		d.calls = append(d.calls, c)
		answer := d.answer
		d.mu.Unlock()
		if answer == nil || !answer(c, w) {
			_, _ = w.Write([]byte("{}"))
		}
	})
	d.Handle("GET /_matrix/client/unstable/org.matrix.msc4140/delayed_events/{id}", func(w http.ResponseWriter, r *http.Request) {
		key := r.URL.Query().Get("user_id") + " " + r.PathValue("id")
		d.mu.Lock()
		d.lookedAt = append(d.lookedAt, r.Header.Get("Authorization")+" "+key)
		event, known := d.scheduled[key]
		hidden := d.scheduled == nil
		d.mu.Unlock()
		switch {
		case hidden:
			w.WriteHeader(http.StatusForbidden)
			event = object{"errcode": "M_FORBIDDEN"}
		case !known:
			w.WriteHeader(http.StatusNotFound)
			event = object{"errcode": "M_NOT_FOUND"}
		}
		_ = json.NewEncoder(w).Encode(event)
	})
	d.Handle("GET /_matrix/client/unstable/io.element.msc4502/rooms/{room}/is_joined", func(w http.ResponseWriter, r *http.Request) {
		user := cmp.Or(r.URL.Query().Get("mxid"), r.URL.Query().Get("user_id"))
		d.mu.Lock()
		d.asked = append(d.asked, r.Header.Get("Authorization"))
		joined, away := d.members[r.PathValue("room")+" "+user], d.away
		d.mu.Unlock()
		if away {
			http.Error(w, `{"errcode":"M_UNKNOWN"}`, http.StatusInternalServerError)
			return
		}
		if r.URL.Query().Get("server_name") != "" {
			joined = true // somebody of it always is
		}
		_ = json.NewEncoder(w).Encode(map[string]bool{"joined": joined})
	})
	return d
}

// answers makes later calls answered so, until it returns false.
func (d *delayedEvents) answers(answer func(c delayedCall, w http.ResponseWriter) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
}

// status answers each call of an action with a status.
func (d *delayedEvents) status(action string, status int) {
	d.answers(func(c delayedCall, w http.ResponseWriter) bool {
		if c.action != action {
			return false
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"errcode":"M_UNKNOWN"}`))
		return true
	})
}

// seen are the calls of an action on an event, in order.
func (d *delayedEvents) seen(id, action string) []delayedCall {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(d.calls), func(c delayedCall) bool { return c.id != id || c.action != action })
}

// joined says that a user is in a room.
func (d *delayedEvents) joined(room, user string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.members[room+" "+user] = true
}

// leaves says that a user is not in a room any more.
func (d *delayedEvents) leaves(room, user string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.members, room+" "+user)
}

// shows lets the application service look at a user's delayed event.
func (d *delayedEvents) shows(user, id, room string, delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.scheduled == nil {
		d.scheduled = map[string]object{}
	}
	d.scheduled[user+" "+id] = object{"delay_id": id, "room_id": room, "type": "m.rtc.member", "delay_ms": delay.Milliseconds()}
}

// looks are those at delayed events, "token user id".
func (d *delayedEvents) looks() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lookedAt)
}

// fail makes the homeserver not know who is in a room.
func (d *delayedEvents) fail(away bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}

// fakeSFU knows three methods of LiveKit's room service; all others are 404.
type fakeSFU struct {
	server *httptest.Server

	mu           sync.Mutex
	rooms        []*livekit.CreateRoomRequest
	lookups      []time.Time
	others       []string
	participants map[string]bool // by "room identity"
	removed      []string        // "room identity"
	down         bool
}

func newFakeSFU(t *testing.T) *fakeSFU {
	s := &fakeSFU{participants: map[string]bool{}}
	s.server = httptest.NewServer(s)
	t.Cleanup(s.server.Close)
	return s
}

func (s *fakeSFU) url() string { return strings.Replace(s.server.URL, "http", "ws", 1) }

func (s *fakeSFU) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		panic(http.ErrAbortHandler) // the connection ends without an answer
	}
	switch {
	case r.URL.Path == "/twirp/livekit.RoomService/CreateRoom" && r.Header.Get("Content-Type") == "application/protobuf":
		var request livekit.CreateRoomRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			panic(err)
		}
		s.rooms = append(s.rooms, &request)
		answerProto(w, &livekit.Room{Name: request.Name})
	case r.URL.Path == "/twirp/livekit.RoomService/GetParticipant":
		var request livekit.RoomParticipantIdentity
		if err := proto.Unmarshal(body, &request); err != nil {
			panic(err)
		}
		s.lookups = append(s.lookups, time.Now())
		if s.participants[request.Room+" "+request.Identity] {
			answerProto(w, &livekit.ParticipantInfo{Identity: request.Identity, State: livekit.ParticipantInfo_ACTIVE})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"code":"not_found","msg":"participant does not exist"}`))
	case r.URL.Path == "/twirp/livekit.RoomService/RemoveParticipant":
		var request livekit.RoomParticipantIdentity
		if err := proto.Unmarshal(body, &request); err != nil {
			panic(err)
		}
		s.removed = append(s.removed, request.Room+" "+request.Identity)
		answerProto(w, &livekit.RemoveParticipantResponse{})
	default:
		s.others = append(s.others, r.URL.Path)
		http.NotFound(w, r)
	}
}

func answerProto(w http.ResponseWriter, message proto.Message) {
	encoded, err := proto.Marshal(message)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/protobuf")
	_, _ = w.Write(encoded)
}

// set says whether a participant is connected.
func (s *fakeSFU) set(room, identity string, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.participants[room+" "+identity] = connected
}

// fail makes the SFU answer nothing.
func (s *fakeSFU) fail(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *fakeSFU) created() []*livekit.CreateRoomRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rooms)
}

// putOut are those who were removed, "room identity", in that order.
func (s *fakeSFU) putOut() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.removed)
}

func (s *fakeSFU) lookedUp() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lookups)
}

// fakeRedis knows PING, HSET, HDEL and HGETALL of one hash.
type fakeRedis struct {
	listener net.Listener

	mu       sync.Mutex
	hash     map[string]string
	commands []string
	gate     chan struct{} // when not nil, HGETALL waits for its end
	broken   bool          // answers -ERR to everything
}

func newFakeRedis(t *testing.T) *fakeRedis {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &fakeRedis{listener: listener, hash: map[string]string{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go r.serve(conn)
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return r
}

func (r *fakeRedis) url() string { return "redis://" + r.listener.Addr().String() + "/0" }

func (r *fakeRedis) serve(conn net.Conn) {
	defer conn.Close()
	from := bufio.NewReader(conn)
	for {
		words, err := readCommand(from)
		if err != nil {
			return
		}
		if _, err := io.WriteString(conn, r.answer(words)); err != nil {
			return
		}
	}
}

// readCommand reads one array of bulk strings (the Redis protocol, version 2).
func readCommand(from *bufio.Reader) ([]string, error) {
	length := func(mark byte) (int, error) {
		line, err := from.ReadString('\n')
		if err != nil || line[0] != mark {
			return 0, io.ErrUnexpectedEOF
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := length('*')
	if err != nil {
		return nil, err
	}
	words := make([]string, n)
	for i := range words {
		size, err := length('$')
		if err != nil {
			return nil, err
		}
		word := make([]byte, size+2)
		if _, err := io.ReadFull(from, word); err != nil {
			return nil, err
		}
		words[i] = string(word[:size])
	}
	return words, nil
}

func (r *fakeRedis) answer(words []string) string {
	command := strings.ToUpper(words[0])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commands = append(r.commands, command)
	mine := len(words) > 1 && words[1] == "lk-jwt:jobs"
	switch {
	case r.broken:
	case command == "PING":
		return "+PONG\r\n"
	case command == "HSET" && mine && len(words) == 4:
		_, had := r.hash[words[2]]
		r.hash[words[2]] = words[3]
		if had {
			return ":0\r\n"
		}
		return ":1\r\n"
	case command == "HDEL" && mine:
		n := 0
		for _, field := range words[2:] {
			if _, had := r.hash[field]; had {
				n++
				delete(r.hash, field)
			}
		}
		return fmt.Sprintf(":%d\r\n", n)
	case command == "HGETALL" && mine:
		if gate := r.gate; gate != nil {
			r.mu.Unlock()
			<-gate
			r.mu.Lock()
		}
		var b strings.Builder
		fmt.Fprintf(&b, "*%d\r\n", 2*len(r.hash))
		for field, value := range r.hash {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n$%d\r\n%s\r\n", len(field), field, len(value), value)
		}
		return b.String()
	}
	return "-ERR unknown command '" + words[0] + "'\r\n"
}

func (r *fakeRedis) put(field, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hash[field] = value
}

// jobs is the hash as it is now.
func (r *fakeRedis) jobs() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	jobs := map[string]string{}
	for field, value := range r.hash {
		jobs[field] = value
	}
	return jobs
}

// noClientAPI makes it a homeserver without .well-known/matrix/client.
func (d *delayedEvents) noClientAPI() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hidden = true
}

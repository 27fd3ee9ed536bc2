package crowd

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash/maphash"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// What Passerelle shares with the SFU.
const sfuKey, sfuSecret = "APIcrowd", "c2b7f1d09e6a4f35b8017c64de92a3f5"

const (
	// reportLanes send reports at once; those of a room stay in their order.
	reportLanes = 8
	// reportTries and reportPause are how often, and how far apart, a report is
	// tried while Passerelle is away; then it is lost, as LiveKit's are.
	reportTries = 3
	reportPause = 300 * time.Millisecond
	// oneIn is the share of reports that are lost, and that are sent twice.
	oneIn = 50
)

// sfu answers like LiveKit's room service and reports as LiveKit does; who is
// there is what it is told.
type sfu struct {
	livekit.RoomService // nil: nobody asks for the rest
	url, webhook        string
	server              *http.Server
	served              chan error
	client              *http.Client
	seed                maphash.Seed
	lanes               []chan *livekit.WebhookEvent
	sending             sync.WaitGroup
	closing             chan struct{}

	mu            sync.Mutex
	random        *mathrand.Rand
	rooms         map[string]map[string]*livekit.ParticipantInfo // by identity
	lost, doubled int
	// putOut are those whom Passerelle had removed.
	putOut []string
}

func startSFU(webhook string, seed uint64) (*sfu, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, err
	}
	s := &sfu{
		url: "ws://" + listener.Addr().String(), webhook: webhook, seed: maphash.MakeSeed(),
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: reportLanes}},
		random: mathrand.New(mathrand.NewPCG(seed, 3)), rooms: map[string]map[string]*livekit.ParticipantInfo{},
		served: make(chan error, 1), closing: make(chan struct{}),
	}
	for range reportLanes {
		// More than a client's room can have; a full one holds clients up.
		lane := make(chan *livekit.WebhookEvent, 1000)
		s.lanes = append(s.lanes, lane)
		s.sending.Go(func() { s.send(lane) })
	}
	service := livekit.NewRoomServiceServer(s)
	s.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !authorised(r) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		service.ServeHTTP(w, r)
	})}
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

// authorised tells whether the caller has the key.
func authorised(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return false
	}
	verifier, err := auth.ParseAPIToken(token)
	if err != nil || verifier.APIKey() != sfuKey {
		return false
	}
	_, _, err = verifier.Verify(sfuSecret)
	return err == nil
}

// close ends it. What was not reported is not any more.
func (s *sfu) close() error {
	close(s.closing)
	for _, lane := range s.lanes {
		close(lane)
	}
	s.sending.Wait()
	err := s.server.Close()
	<-s.served
	s.client.CloseIdleConnections()
	return err
}

// join connects somebody, and reports it.
func (s *sfu) join(room, identity string, may *livekit.ParticipantPermission) {
	s.mu.Lock()
	if s.rooms[room] == nil {
		s.rooms[room] = map[string]*livekit.ParticipantInfo{}
	}
	p := &livekit.ParticipantInfo{
		Sid: "PA_" + rand.Text(), Identity: identity, Permission: may,
		State: livekit.ParticipantInfo_ACTIVE, JoinedAt: time.Now().Unix(),
	}
	s.rooms[room][identity] = p
	s.mu.Unlock()
	s.report("participant_joined", room, p)
}

// leave disconnects somebody, and reports why.
func (s *sfu) leave(room, identity string, why livekit.DisconnectReason) {
	if p := s.vanish(room, identity); p != nil {
		gone := proto.Clone(p).(*livekit.ParticipantInfo)
		gone.State, gone.DisconnectReason = livekit.ParticipantInfo_DISCONNECTED, why
		s.report("participant_left", room, gone)
	}
}

// vanish disconnects somebody, and says nothing.
func (s *sfu) vanish(room, identity string) *livekit.ParticipantInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.rooms[room][identity]
	delete(s.rooms[room], identity)
	return p
}

// report queues a report, or loses it, or queues it twice.
func (s *sfu) report(what, room string, p *livekit.ParticipantInfo) {
	event := &livekit.WebhookEvent{
		Id: "EV_" + rand.Text(), Event: what, CreatedAt: time.Now().Unix(),
		Room: &livekit.Room{Name: room}, Participant: p,
	}
	s.mu.Lock()
	luck := s.random.IntN(oneIn)
	switch luck {
	case 0:
		s.lost++
	case 1:
		s.doubled++
	}
	s.mu.Unlock()
	lane := s.lanes[maphash.String(s.seed, room)%reportLanes]
	if luck > 0 {
		lane <- event
	}
	if luck == 1 {
		lane <- event
	}
}

// send sends what is queued, each report for as long as it is worth it.
func (s *sfu) send(lane <-chan *livekit.WebhookEvent) {
	for event := range lane {
		for try := 1; s.post(event) != nil; try++ {
			if try == reportTries {
				s.mu.Lock()
				s.lost++
				s.mu.Unlock()
				break
			}
			select {
			case <-time.After(reportPause):
			case <-s.closing:
			}
		}
	}
}

func (s *sfu) post(event *livekit.WebhookEvent) error {
	body, err := protojson.Marshal(event)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	token, err := auth.NewAccessToken(sfuKey, sfuSecret).SetValidFor(5 * time.Minute).
		SetSha256(base64.StdEncoding.EncodeToString(sum[:])).ToJWT()
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodPost, s.webhook, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", token)
	request.Header.Set("Content-Type", "application/webhook+json")
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// CreateRoom implements [livekit.RoomService].
func (s *sfu) CreateRoom(_ context.Context, r *livekit.CreateRoomRequest) (*livekit.Room, error) {
	return &livekit.Room{Name: r.Name}, nil
}

// ListRooms implements [livekit.RoomService]: it is asked as a sign of life.
func (s *sfu) ListRooms(context.Context, *livekit.ListRoomsRequest) (*livekit.ListRoomsResponse, error) {
	return &livekit.ListRoomsResponse{}, nil
}

// ListParticipants implements [livekit.RoomService].
func (s *sfu) ListParticipants(_ context.Context, r *livekit.ListParticipantsRequest) (*livekit.ListParticipantsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &livekit.ListParticipantsResponse{}
	for _, p := range s.rooms[r.Room] {
		answer.Participants = append(answer.Participants, p)
	}
	return answer, nil
}

// GetParticipant implements [livekit.RoomService].
func (s *sfu) GetParticipant(_ context.Context, r *livekit.RoomParticipantIdentity) (*livekit.ParticipantInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.rooms[r.Room][r.Identity]; p != nil {
		return p, nil
	}
	return nil, twirp.NotFoundError("participant does not exist")
}

// RemoveParticipant implements [livekit.RoomService]. Nobody here may be removed,
// so whoever is, is noted.
func (s *sfu) RemoveParticipant(_ context.Context, r *livekit.RoomParticipantIdentity) (*livekit.RemoveParticipantResponse, error) {
	s.mu.Lock()
	there := s.rooms[r.Room][r.Identity] != nil
	if there {
		s.putOut = append(s.putOut, r.Identity)
	}
	s.mu.Unlock()
	s.leave(r.Room, r.Identity, livekit.DisconnectReason_PARTICIPANT_REMOVED)
	return &livekit.RemoveParticipantResponse{}, nil
}

// UpdateParticipant implements [livekit.RoomService]: what somebody may do.
func (s *sfu) UpdateParticipant(_ context.Context, r *livekit.UpdateParticipantRequest) (*livekit.ParticipantInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.rooms[r.Room][r.Identity]
	if p == nil {
		return nil, twirp.NotFoundError("participant does not exist")
	}
	// Others may be reading the one that is there.
	p = proto.Clone(p).(*livekit.ParticipantInfo)
	p.Permission = r.Permission
	s.rooms[r.Room][r.Identity] = p
	return p, nil
}

// DeleteRoom implements [livekit.RoomService]: as RemoveParticipant, for all.
func (s *sfu) DeleteRoom(ctx context.Context, r *livekit.DeleteRoomRequest) (*livekit.DeleteRoomResponse, error) {
	s.mu.Lock()
	var there []string
	for identity := range s.rooms[r.Room] {
		there = append(there, identity)
	}
	s.mu.Unlock()
	for _, identity := range there {
		if _, err := s.RemoveParticipant(ctx, &livekit.RoomParticipantIdentity{Room: r.Room, Identity: identity}); err != nil {
			return nil, err
		}
	}
	return &livekit.DeleteRoomResponse{}, nil
}

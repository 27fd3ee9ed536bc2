package livekit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"

	"passerelle/focus/matrixrtc"
)

// callTimeout bounds one call of the room service.
const callTimeout = 5 * time.Second

// adminLifetime is how long the token of one administrative call is good.
const adminLifetime = time.Minute

// Rooms is LiveKit's room service, reached over Twirp.
type Rooms struct {
	service livekit.RoomService
	key     string
	secret  string
	// creator is the token with which rooms are made. Each token request needs
	// one, so it is used again for half of its life.
	creator atomic.Pointer[creator]
}

type creator struct {
	header http.Header
	until  time.Time
}

// RoomsOptions say where a LiveKit is and how to speak to it.
type RoomsOptions struct {
	// URL is its address; ws and wss stand for http and https.
	URL    *url.URL
	Key    string
	Secret string
	// Client is the HTTP client; nil makes one with keep-alive.
	Client *http.Client
}

// NewRooms returns the room service at o.URL. It connects to nothing yet.
func NewRooms(o RoomsOptions) (*Rooms, error) {
	base := *o.URL
	switch base.Scheme {
	case "ws":
		base.Scheme = "http"
	case "wss":
		base.Scheme = "https"
	case "http", "https":
	default:
		return nil, fmt.Errorf("livekit address %q: scheme must be ws, wss, http or https", base.Redacted())
	}
	base.Path = strings.TrimRight(base.Path, "/")
	client := o.Client
	if client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.Proxy = nil
		transport.MaxIdleConnsPerHost = 32
		client = &http.Client{Transport: transport, Timeout: callTimeout}
	}
	return &Rooms{
		service: livekit.NewRoomServiceProtobufClient(base.String(), client),
		key:     o.Key,
		secret:  o.Secret,
	}, nil
}

// EnsureRoom makes the SFU room, or leaves the one that exists as it is.
func (r *Rooms) EnsureRoom(ctx context.Context, room matrixrtc.SFURoom, o matrixrtc.RoomOptions) error {
	header, err := r.creatorHeader()
	if err != nil {
		return err
	}
	ctx, cancel, err := withHeader(ctx, header)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = r.service.CreateRoom(ctx, &livekit.CreateRoomRequest{
		Name:             string(room),
		EmptyTimeout:     uint32(o.EmptyTimeout / time.Second),
		DepartureTimeout: uint32(o.DepartureTimeout / time.Second),
		MaxParticipants:  uint32(o.MaxParticipants),
	})
	if err != nil {
		return fmt.Errorf("create SFU room: %w", plain(err))
	}
	return nil
}

// Participants lists the people who are connected to the SFU room. A room that
// does not exist has nobody in it.
func (r *Rooms) Participants(ctx context.Context, room matrixrtc.SFURoom) ([]matrixrtc.Participant, error) {
	ctx, cancel, err := r.admin(ctx, &auth.VideoGrant{RoomAdmin: true, Room: string(room)})
	if err != nil {
		return nil, err
	}
	defer cancel()
	answer, err := r.service.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: string(room)})
	var failure twirp.Error
	switch {
	case errors.As(err, &failure) && failure.Code() == twirp.NotFound:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list participants: %w", plain(err))
	}
	participants := make([]matrixrtc.Participant, 0, len(answer.Participants))
	for _, p := range answer.Participants {
		if !isPerson(p) {
			continue
		}
		participants = append(participants, participant(p))
	}
	return participants, nil
}

// isPerson tells people from agents, recorders, bridges and the hidden.
func isPerson(p *livekit.ParticipantInfo) bool {
	return p.GetIdentity() != "" && p.GetKind() == livekit.ParticipantInfo_STANDARD && !p.GetPermission().GetHidden()
}

// Remove disconnects the participant, who is told not to come back. One that
// is not there is no error.
func (r *Rooms) Remove(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) error {
	ctx, cancel, err := r.admin(ctx, &auth.VideoGrant{RoomAdmin: true, Room: string(room)})
	if err != nil {
		return err
	}
	defer cancel()
	_, err = r.service.RemoveParticipant(ctx, &livekit.RoomParticipantIdentity{Room: string(room), Identity: string(who)})
	var failure twirp.Error
	switch {
	case errors.As(err, &failure) && failure.Code() == twirp.NotFound:
		return nil
	case err != nil:
		return fmt.Errorf("remove participant: %w", plain(err))
	}
	return nil
}

// Participant returns the connection of the identity to the SFU room, and
// whether there is one.
func (r *Rooms) Participant(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (matrixrtc.Participant, bool, error) {
	ctx, cancel, err := r.admin(ctx, &auth.VideoGrant{RoomAdmin: true, Room: string(room)})
	if err != nil {
		return matrixrtc.Participant{}, false, err
	}
	defer cancel()
	p, err := r.service.GetParticipant(ctx, &livekit.RoomParticipantIdentity{Room: string(room), Identity: string(who)})
	var failure twirp.Error
	switch {
	case errors.As(err, &failure) && failure.Code() == twirp.NotFound:
		return matrixrtc.Participant{}, false, nil
	case err != nil:
		return matrixrtc.Participant{}, false, fmt.Errorf("look for participant: %w", plain(err))
	case p.State == livekit.ParticipantInfo_DISCONNECTED:
		return matrixrtc.Participant{}, false, nil
	}
	return participant(p), true, nil
}

func participant(p *livekit.ParticipantInfo) matrixrtc.Participant {
	return matrixrtc.Participant{
		Identity: matrixrtc.Identity(p.Identity), SID: p.Sid, Joined: p.State == livekit.ParticipantInfo_ACTIVE,
		JoinedAt: time.Unix(p.JoinedAt, 0),
		Publish:  permitted(p.GetPermission()), Sends: sent(p.GetTracks()),
	}
}

// Ping asks the SFU a question that needs our key and costs it nothing.
func (r *Rooms) Ping(ctx context.Context) error {
	ctx, cancel, err := r.admin(ctx, &auth.VideoGrant{RoomList: true})
	if err != nil {
		return err
	}
	defer cancel()
	// A name that no hash can be: the answer is always an empty list.
	if _, err := r.service.ListRooms(ctx, &livekit.ListRoomsRequest{Names: []string{"ping"}}); err != nil {
		return fmt.Errorf("ask the SFU: %w", plain(err))
	}
	return nil
}

// creatorHeader carries a token that lets rooms be made.
func (r *Rooms) creatorHeader() (http.Header, error) {
	now := time.Now()
	if c := r.creator.Load(); c != nil && now.Before(c.until) {
		return c.header, nil
	}
	header, err := r.adminHeader(&auth.VideoGrant{RoomCreate: true})
	if err == nil {
		r.creator.Store(&creator{header, now.Add(adminLifetime / 2)})
	}
	return header, err
}

// admin returns ctx with a short-lived token of the one grant that the call
// needs, and a deadline.
func (r *Rooms) admin(ctx context.Context, grant *auth.VideoGrant) (context.Context, context.CancelFunc, error) {
	header, err := r.adminHeader(grant)
	if err != nil {
		return nil, nil, err
	}
	return withHeader(ctx, header)
}

func (r *Rooms) adminHeader(grant *auth.VideoGrant) (http.Header, error) {
	token, err := auth.NewAccessToken(r.key, r.secret).SetVideoGrant(grant).SetValidFor(adminLifetime).ToJWT()
	if err != nil {
		return nil, fmt.Errorf("make administrative token: %w", err)
	}
	return http.Header{"Authorization": {"Bearer " + token}}, nil
}

func withHeader(ctx context.Context, header http.Header) (context.Context, context.CancelFunc, error) {
	ctx, err := twirp.WithHTTPRequestHeaders(ctx, header)
	if err != nil {
		return nil, nil, fmt.Errorf("attach administrative token: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	return ctx, cancel, nil
}

// plain reduces a Twirp error to its code and message: LiveKit puts tokens
// into the metadata of some.
func plain(err error) error {
	var failure twirp.Error
	if !errors.As(err, &failure) {
		return err
	}
	if failure.Code() == twirp.Unauthenticated || failure.Code() == twirp.PermissionDenied {
		return fmt.Errorf("%s (is the API key right?)", failure.Code())
	}
	return fmt.Errorf("%s: %s", failure.Code(), failure.Msg())
}

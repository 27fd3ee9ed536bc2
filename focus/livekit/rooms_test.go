package livekit

import (
	"context"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/stretchr/testify/require"
	"github.com/twitchtv/twirp"

	"passerelle/focus/matrixrtc"
)

// service is LiveKit's room service, as far as it is asked here.
type service struct {
	livekit.RoomService
	present []*livekit.ParticipantInfo
	removed []string
	failure error
}

func (s *service) ListParticipants(context.Context, *livekit.ListParticipantsRequest) (*livekit.ListParticipantsResponse, error) {
	return &livekit.ListParticipantsResponse{Participants: s.present}, s.failure
}

func (s *service) RemoveParticipant(_ context.Context, r *livekit.RoomParticipantIdentity) (*livekit.RemoveParticipantResponse, error) {
	s.removed = append(s.removed, r.Room+" "+r.Identity)
	return &livekit.RemoveParticipantResponse{}, s.failure
}

func newRooms(t *testing.T, s *service) *Rooms {
	t.Helper()
	server := httptest.NewServer(livekit.NewRoomServiceServer(s))
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	require.NoError(t, err)
	rooms, err := NewRooms(RoomsOptions{URL: address, Key: testKey, Secret: testSecret})
	require.NoError(t, err)
	return rooms
}

// Those who are there for the service's own sake are nobody.
func TestParticipantsArePeople(t *testing.T) {
	s := &service{present: []*livekit.ParticipantInfo{
		{Identity: "ana", Sid: "PA_1", State: livekit.ParticipantInfo_ACTIVE, JoinedAt: 1793000000},
		{Identity: "bo", Sid: "PA_2", State: livekit.ParticipantInfo_JOINING, JoinedAt: 1793000001},
		{Identity: "agent", Sid: "PA_3", State: livekit.ParticipantInfo_ACTIVE, Kind: livekit.ParticipantInfo_AGENT},
		{Identity: "egress", Sid: "PA_4", State: livekit.ParticipantInfo_ACTIVE, Kind: livekit.ParticipantInfo_EGRESS},
		{Identity: "hidden", Sid: "PA_5", State: livekit.ParticipantInfo_ACTIVE, Permission: &livekit.ParticipantPermission{Hidden: true}},
		{Sid: "PA_6", State: livekit.ParticipantInfo_ACTIVE},
	}}
	got, err := newRooms(t, s).Participants(t.Context(), "room")
	require.NoError(t, err)
	require.Equal(t, []matrixrtc.Participant{
		{Identity: "ana", SID: "PA_1", Joined: true, JoinedAt: time.Unix(1793000000, 0)},
		{Identity: "bo", SID: "PA_2", JoinedAt: time.Unix(1793000001, 0)},
	}, got)
}

func TestRemove(t *testing.T) {
	s := &service{}
	rooms := newRooms(t, s)
	require.NoError(t, rooms.Remove(t.Context(), "room", "@ana:hs:DEV"))
	require.Equal(t, []string{"room @ana:hs:DEV"}, s.removed)
	s.failure = twirp.NotFoundError("participant does not exist")
	require.NoError(t, rooms.Remove(t.Context(), "room", "bo"), "who is not there need not be removed")
	got, err := rooms.Participants(t.Context(), "room")
	require.NoError(t, err)
	require.Empty(t, got)
	s.failure = twirp.InternalError("no response from servers")
	require.ErrorContains(t, rooms.Remove(t.Context(), "room", "bo"), "no response")
}

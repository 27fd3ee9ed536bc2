package livekit

import (
	"context"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
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
	updated []*livekit.ParticipantPermission
	deleted []string
	failure error
}

func (s *service) UpdateParticipant(_ context.Context, r *livekit.UpdateParticipantRequest) (*livekit.ParticipantInfo, error) {
	s.updated = append(s.updated, r.Permission)
	return &livekit.ParticipantInfo{}, s.failure
}

func (s *service) DeleteRoom(_ context.Context, r *livekit.DeleteRoomRequest) (*livekit.DeleteRoomResponse, error) {
	s.deleted = append(s.deleted, r.Room)
	return &livekit.DeleteRoomResponse{}, s.failure
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

// A change of permissions says the same as a token with these rights, so that it
// changes nothing for who has them.
func TestAllowIsWhatATokenSays(t *testing.T) {
	s := &service{}
	rooms := newRooms(t, s)
	for publish := range matrixrtc.AllSources + 1 {
		require.NoError(t, rooms.Allow(t.Context(), "room", "ana", matrixrtc.Permissions{Publish: publish, UpdateOwnMetadata: publish == 1}))
		token := sign(t, testTokens(time.Now()), matrixrtc.Grant{Room: "room", Identity: "ana", Publish: publish, UpdateOwnMetadata: publish == 1, Lifetime: time.Hour})
		parsed, err := auth.ParseAPIToken(token)
		require.NoError(t, err)
		_, grants, err := parsed.Verify(testSecret)
		require.NoError(t, err)
		sent := s.updated[len(s.updated)-1]
		require.True(t, grants.Video.MatchesPermission(sent), "%s: %v", publish, sent)
		require.Equal(t, publish, permitted(sent))
		require.Equal(t, publish, permitted(grants.Video.ToPermission()))
		for _, source := range []struct {
			is   matrixrtc.Sources
			like livekit.TrackSource
		}{
			{matrixrtc.Microphone, livekit.TrackSource_MICROPHONE}, {matrixrtc.Camera, livekit.TrackSource_CAMERA},
			{matrixrtc.ScreenShare, livekit.TrackSource_SCREEN_SHARE}, {matrixrtc.ScreenShare, livekit.TrackSource_SCREEN_SHARE_AUDIO},
			{matrixrtc.AllSources, livekit.TrackSource_UNKNOWN},
		} {
			require.Equal(t, publish&source.is == source.is, grants.Video.GetCanPublishSource(source.like), "%s: %s", publish, source.like)
		}
	}
	s.failure = twirp.NotFoundError("participant does not exist")
	require.NoError(t, rooms.Allow(t.Context(), "room", "bo", matrixrtc.Permissions{}))
	s.failure = twirp.InternalError("no response from servers")
	require.ErrorContains(t, rooms.Allow(t.Context(), "room", "bo", matrixrtc.Permissions{}), "no response")
}

func TestEnd(t *testing.T) {
	s := &service{}
	rooms := newRooms(t, s)
	require.NoError(t, rooms.End(t.Context(), "room"))
	require.Equal(t, []string{"room"}, s.deleted)
	s.failure = twirp.NotFoundError("requested room does not exist")
	require.NoError(t, rooms.End(t.Context(), "room"))
	s.failure = twirp.InternalError("no response from servers")
	require.ErrorContains(t, rooms.End(t.Context(), "room"), "no response")
}

// What is in a track counts, not only what it is called.
func TestWhatIsSent(t *testing.T) {
	track := func(kind livekit.TrackType, source livekit.TrackSource) *livekit.TrackInfo {
		return &livekit.TrackInfo{Type: kind, Source: source}
	}
	const sound, picture = livekit.TrackType_AUDIO, livekit.TrackType_VIDEO
	s := &service{}
	rooms := newRooms(t, s)
	for _, c := range []struct {
		track *livekit.TrackInfo
		want  matrixrtc.Sources
	}{
		{track(sound, livekit.TrackSource_MICROPHONE), matrixrtc.Microphone},
		{track(sound, livekit.TrackSource_UNKNOWN), matrixrtc.Microphone},
		{track(sound, livekit.TrackSource_CAMERA), matrixrtc.Microphone},
		{track(picture, livekit.TrackSource_CAMERA), matrixrtc.Camera},
		{track(picture, livekit.TrackSource_MICROPHONE), matrixrtc.Camera},
		{track(picture, livekit.TrackSource_SCREEN_SHARE), matrixrtc.ScreenShare},
		{track(sound, livekit.TrackSource_SCREEN_SHARE_AUDIO), matrixrtc.ScreenShare},
		{track(livekit.TrackType_DATA, livekit.TrackSource_UNKNOWN), 0},
	} {
		s.present = []*livekit.ParticipantInfo{{Identity: "ana", Tracks: []*livekit.TrackInfo{c.track}}}
		got, err := rooms.Participants(t.Context(), "room")
		require.NoError(t, err)
		require.Equal(t, c.want, got[0].Sends, "%v", c.track)
	}
}

package livekit

import (
	"context"
	"errors"
	"fmt"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"

	"passerelle/focus/matrixrtc"
)

// liveKitSources are LiveKit's names of each source, in the order in which they
// are written: LiveKit compares lists.
var liveKitSources = []struct {
	source matrixrtc.Sources
	proto  livekit.TrackSource
	name   string
}{
	{matrixrtc.Microphone, livekit.TrackSource_MICROPHONE, "microphone"},
	{matrixrtc.Camera, livekit.TrackSource_CAMERA, "camera"},
	{matrixrtc.ScreenShare, livekit.TrackSource_SCREEN_SHARE, "screen_share"},
	{matrixrtc.ScreenShare, livekit.TrackSource_SCREEN_SHARE_AUDIO, "screen_share_audio"},
}

// limited tells whether something may be sent and something not.
func limited(s matrixrtc.Sources) bool { return s != 0 && s != matrixrtc.AllSources }

// sourceNames is the claim canPublishSources; nil where there is nothing to list.
func sourceNames(s matrixrtc.Sources) (names []string) {
	if !limited(s) {
		return nil
	}
	for _, l := range liveKitSources {
		if s&l.source != 0 {
			names = append(names, l.name)
		}
	}
	return names
}

// permitted is what a permission lets send.
func permitted(p *livekit.ParticipantPermission) (s matrixrtc.Sources) {
	switch {
	case !p.GetCanPublish():
		return 0
	case len(p.GetCanPublishSources()) == 0:
		return matrixrtc.AllSources
	}
	for _, allowed := range p.GetCanPublishSources() {
		for _, l := range liveKitSources {
			if allowed == l.proto {
				s |= l.source
			}
		}
	}
	return s
}

// sent is what the tracks hold. LiveKit takes a client's word for their source,
// and knows by itself whether it is sound or picture.
func sent(tracks []*livekit.TrackInfo) (s matrixrtc.Sources) {
	for _, t := range tracks {
		screen := t.GetSource() == livekit.TrackSource_SCREEN_SHARE || t.GetSource() == livekit.TrackSource_SCREEN_SHARE_AUDIO
		switch {
		case screen:
			s |= matrixrtc.ScreenShare
		case t.GetType() == livekit.TrackType_VIDEO:
			s |= matrixrtc.Camera
		case t.GetType() == livekit.TrackType_AUDIO:
			s |= matrixrtc.Microphone
		}
	}
	return s
}

// Allow changes what a participant who is connected may do: from now on it is
// what a token with these rights says. LiveKit ends the tracks of what is
// allowed no more, and sends the client a token with the new rights. One that is
// not there is no error.
func (r *Rooms) Allow(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity, p matrixrtc.Permissions) error {
	ctx, cancel, err := r.admin(ctx, &auth.VideoGrant{RoomAdmin: true, Room: string(room)})
	if err != nil {
		return err
	}
	defer cancel()
	permission := &livekit.ParticipantPermission{
		CanSubscribe: true, CanPublish: p.Publish != 0, CanPublishData: p.Publish != 0,
		CanUpdateMetadata: p.UpdateOwnMetadata,
	}
	if limited(p.Publish) {
		for _, l := range liveKitSources {
			if p.Publish&l.source != 0 {
				permission.CanPublishSources = append(permission.CanPublishSources, l.proto)
			}
		}
	}
	_, err = r.service.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{
		Room: string(room), Identity: string(who), Permission: permission,
	})
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("change what a participant may do: %w", plain(err))
	}
	return nil
}

// End closes the SFU room and disconnects everybody who is in it. One that does
// not exist is no error.
func (r *Rooms) End(ctx context.Context, room matrixrtc.SFURoom) error {
	ctx, cancel, err := r.admin(ctx, &auth.VideoGrant{RoomCreate: true, Room: string(room)})
	if err != nil {
		return err
	}
	defer cancel()
	if _, err := r.service.DeleteRoom(ctx, &livekit.DeleteRoomRequest{Room: string(room)}); err != nil && !isNotFound(err) {
		return fmt.Errorf("close SFU room: %w", plain(err))
	}
	return nil
}

func isNotFound(err error) bool {
	var failure twirp.Error
	return errors.As(err, &failure) && failure.Code() == twirp.NotFound
}

package headless

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/twitchtv/twirp"

	"passerelle/demo/town"
)

const (
	// askEvery is how often an SFU is asked who is there, askWithin how long it
	// may take.
	askEvery  = 50 * time.Millisecond
	askWithin = 2 * time.Second
)

// awaitEmpty returns when the ministry's SFU has nobody in any room.
func awaitEmpty(ctx context.Context, m *town.Ministry) (time.Time, error) {
	sfu, err := m.SFU()
	if err != nil {
		return time.Time{}, err
	}
	rooms := lksdk.NewRoomServiceClient(sfu.URL, sfu.Key, sfu.Secret)
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		there, err := participants(ctx, rooms)
		if err != nil || there == 0 {
			return time.Now(), err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("the SFU of %s still has %d participants: %w", m.Name, there, context.Cause(ctx))
		}
	}
}

func participants(ctx context.Context, rooms *lksdk.RoomServiceClient) (there int, err error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	list, err := rooms.ListRooms(ctx, &livekit.ListRoomsRequest{})
	if err != nil {
		return 0, err
	}
	for _, room := range list.Rooms {
		answer, err := rooms.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: room.Name})
		var failure twirp.Error
		if err != nil && !(errors.As(err, &failure) && failure.Code() == twirp.NotFound) {
			return 0, err
		}
		there += len(answer.GetParticipants())
	}
	return there, nil
}

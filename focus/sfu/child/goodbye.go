package child

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/livekit/livekit-server/pkg/rtc/types"
	"github.com/livekit/livekit-server/pkg/service"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twitchtv/twirp"

	"passerelle/focus/sfu"
)

const (
	// lastWords bounds the wait for LiveKit's last messages.
	lastWords = time.Second
	// silence is how long nothing new must come for them to be the last.
	silence = 150 * time.Millisecond
)

// goodbye ends all rooms and waits until it is known: by the participants, and
// where LiveKit reports. Its own stop ends the rooms as well, but takes the
// signalling away at the same time and waits for no webhook: some clients
// would believe in a fault of the network and come back again and again, and
// nobody would be told who left.
func goodbye(ctx context.Context, manager *service.RoomManager, s sfu.Settings) {
	names, err := roomNames(ctx, s)
	if err != nil {
		logger.Warnw("the rooms could not be ended one by one", err)
	}
	for _, name := range names {
		if room := manager.GetRoom(ctx, livekit.RoomName(name)); room != nil {
			room.Close(types.ParticipantCloseReasonRoomManagerStop)
		}
	}
	if len(names) > 0 {
		awaitSilence(ctx, prometheus.DefaultGatherer)
	}
}

// roomNames asks LiveKit for its rooms, by the only way there is.
func roomNames(ctx context.Context, s sfu.Settings) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	token, err := auth.NewAccessToken(s.Key, s.Secret).SetVideoGrant(&auth.VideoGrant{RoomList: true}).
		SetValidFor(time.Minute).ToJWT()
	if err != nil {
		return nil, fmt.Errorf("make a token: %w", err)
	}
	ctx, err = twirp.WithHTTPRequestHeaders(ctx, http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		return nil, fmt.Errorf("use a token: %w", err)
	}
	answer, err := livekit.NewRoomServiceProtobufClient(apiURL(s.Port), newClient()).ListRooms(ctx, &livekit.ListRoomsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list rooms: %w", err)
	}
	var names []string
	for _, room := range answer.GetRooms() {
		names = append(names, room.GetName())
	}
	return names, nil
}

func apiURL(port int) string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// newClient is for questions to ourselves: no proxy, no connection that stays.
func newClient() *http.Client {
	return &http.Client{Timeout: pollTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
}

// awaitSilence returns once LiveKit has delivered its webhooks and no more come.
// Only its metrics tell how far it is.
func awaitSilence(ctx context.Context, from prometheus.Gatherer) {
	ctx, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	before, since := countWebhooks(from), time.Now()
	for {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
		now := countWebhooks(from)
		if now != before {
			before, since = now, time.Now()
		}
		if now.dispatched >= now.queued && time.Since(since) > silence {
			return
		}
	}
}

// webhooks is how many LiveKit has queued, and how many of those it has
// delivered or given up.
type webhooks struct {
	queued, dispatched float64
}

func countWebhooks(from prometheus.Gatherer) (c webhooks) {
	families, _ := from.Gather() // with an error comes what could be gathered
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "livekit_webhook_queue_length":
				c.queued += float64(m.GetHistogram().GetSampleCount())
			case "livekit_webhook_dispatch_total":
				c.dispatched += m.GetCounter().GetValue()
			}
		}
	}
	return c
}

package leave

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// maxScheduled bounds what is believed of a delay; no homeserver allows more.
const maxScheduled = 100 * 365 * 24 * time.Hour

// Scheduled asks a homeserver, once, for a delayed event of one of its users,
// in the name of that user: a registration whose users namespace holds them
// allows that (MSC4140; application service API, "Identity assertion"). Errors
// are [matrixrtc.ErrNoEvent], [matrixrtc.ErrEventHidden] and, where it is not
// known, others; none holds the address, and the delay ID in it.
func (l *Leaves) Scheduled(ctx context.Context, server string, user id.UserID, event matrixrtc.DelayID) (matrixrtc.ScheduledEvent, error) {
	api, err := l.options.Homeservers.API(ctx, server)
	switch {
	case err != nil:
		return matrixrtc.ScheduledEvent{}, err
	case api.Token == "":
		return matrixrtc.ScheduledEvent{}, matrixrtc.ErrEventHidden
	}
	ctx, cancel := context.WithTimeout(ctx, l.timing.CallTimeout)
	defer cancel()
	return api.scheduled(ctx, user, event.Reveal())
}

func (a API) scheduled(ctx context.Context, user id.UserID, delayID string) (matrixrtc.ScheduledEvent, error) {
	var none matrixrtc.ScheduledEvent
	address := strings.TrimSuffix(a.URL.String(), "/") + delayedEvents + url.PathEscape(delayID) +
		"?" + url.Values{"user_id": {string(user)}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return none, errors.New("the address cannot be written")
	}
	status, _, body, err := a.do(request)
	if err != nil {
		return none, errors.New("the homeserver did not answer")
	}
	var answer struct {
		Code    string    `json:"errcode"`
		RoomID  id.RoomID `json:"room_id"`
		DelayMS float64   `json:"delay_ms"`
		Delay   float64   `json:"delay"` // its name in earlier texts
	}
	err = json.Unmarshal(body, &answer)
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusMethodNotAllowed,
		status == http.StatusNotFound && answer.Code != "M_NOT_FOUND":
		// Not our users, or a homeserver that lists delayed events and shows none.
		return none, matrixrtc.ErrEventHidden
	case status == http.StatusNotFound:
		return none, matrixrtc.ErrNoEvent
	case status != http.StatusOK:
		return none, fmt.Errorf("the homeserver answered with status %d", status)
	case err != nil || answer.RoomID == "":
		return none, errors.New("the homeserver's answer is not the JSON expected")
	}
	ms := min(max(answer.DelayMS, answer.Delay, 0), float64(maxScheduled/time.Millisecond))
	return matrixrtc.ScheduledEvent{RoomID: answer.RoomID, Delay: time.Duration(ms) * time.Millisecond}, nil
}

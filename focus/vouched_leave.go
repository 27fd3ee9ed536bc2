package focus

import (
	"context"
	"errors"
	"net/http"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// unknownDelay is taken for the delay of a leave of which nobody says it.
// Clients that hand leaves over schedule them an hour ahead (MSC4195); this one
// holds for a twelfth of that too, and costs the homeserver a request in some
// minutes for each participant.
const unknownDelay = 5 * time.Minute

var (
	errNoEvent = mautrix.MInvalidParam.WithMessage("delay_id is not a delayed event of the user in this room")
	// errEventUnknown is for a homeserver that does not say whose event it is.
	errEventUnknown = mautrix.RespError{
		ErrCode: "M_UNKNOWN", StatusCode: http.StatusServiceUnavailable,
		Err: "the homeserver does not answer; try again",
	}
)

// vouchedLeaveBody is the body of delegate_delayed_leave as the homeserver hands
// it over: that of get_token without server_name, and with delay_id. The delay
// itself is no field of MSC4195; where a client adds it, it is in milliseconds.
type vouchedLeaveBody struct {
	vouchedBody
	delayFields
}

// ServeVouchedLeave answers a delegate_delayed_leave for which the homeserver
// vouches (MSC4195), with {} or a Matrix error. Every answer is a JSON object,
// and none is 401.
//
//	400 M_NOT_JSON       not JSON, or a field of the wrong type
//	400 M_BAD_JSON       a field is missing, empty or impossible
//	400 M_INVALID_PARAM  url is not our SFU, or delay_id no leave of the user's from this room
//	403 M_FORBIDDEN      policy, membership, or a user of another server
//	404 M_UNRECOGNIZED   leaves are not taken over here (clients probe for it)
//	413 M_TOO_LARGE      more than 32 KiB
//	429 M_LIMIT_EXCEEDED {retry_after_ms}, and the header Retry-After
//	502, 503 M_UNKNOWN   the homeserver or the database is not available, or the service is stopping
func (s *Service) ServeVouchedLeave(w http.ResponseWriter, r *http.Request, caller matrixrtc.Caller) {
	if !s.delegates() {
		writeError(w, mautrix.MUnrecognized.WithMessage("delayed leaves are not taken over here"))
		return
	}
	started := time.Now()
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	request, err := s.decodeVouched(r.Body, caller, routeProxiedDelegate)
	if err == nil {
		_, err = s.authorise(r.Context(), request)
	}
	s.metrics.answered(routeProxiedDelegate, err, time.Since(started))
	if err != nil {
		writeError(w, s.vouchedError(routeProxiedDelegate, err))
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// checkLeave is check where the homeserver knows the delay.
func (d delayFields) checkLeave() error {
	switch {
	case d.DelayTimeout < 0:
		return mautrix.MBadJSON.WithMessage("delay_timeout is less than 0")
	case d.DelayTimeout == 0:
		d.DelayTimeout = 1
	}
	return d.check(true)
}

// delegateAlone takes over the leave of a request that asks for nothing else.
// Where the homeserver has vouched for the user it is asked for the event, too:
// what it says of the delay counts. Where it does not show it, what the client
// says does, and whoever knows the ID may manage the event anyway (MSC4140).
func (s *Service) delegateAlone(ctx context.Context, r *tokenRequest, user id.UserID) error {
	if r.route != routeProxiedDelegate {
		return s.delegate(ctx, r, user)
	}
	event, err := s.leaves.Scheduled(ctx, r.server(), user, r.delay.DelayID)
	switch {
	case errors.Is(err, matrixrtc.ErrEventHidden):
		if r.delay.DelayTimeout == 0 {
			r.delay.DelayTimeout = milliseconds(unknownDelay.Milliseconds())
		}
	case errors.Is(err, matrixrtc.ErrNoEvent):
		return errNoEvent
	case err != nil:
		s.log.Debug().Err(err).Msg("A delayed event was not looked up")
		return errEventUnknown
	case event.RoomID != r.slot.RoomID, event.Delay <= 0:
		return errNoEvent
	default:
		r.delay.DelayTimeout = milliseconds(event.Delay.Milliseconds())
	}
	return s.delegate(ctx, r, user)
}

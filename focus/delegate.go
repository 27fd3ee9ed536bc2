package focus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// Leaves takes over leaves that clients scheduled at their homeserver.
// leave.Leaves is one.
type Leaves interface {
	// Available tells whether it can, as far as is known.
	Available() bool
	// Reachable is nil when the client-server API of a homeserver, by which its
	// delayed events are managed, can be found.
	Reachable(ctx context.Context, server string) error
	// Scheduled looks up a delayed event of a user of the homeserver. Errors are
	// [matrixrtc.ErrNoEvent], [matrixrtc.ErrEventHidden] where that may not be
	// looked at, and others.
	Scheduled(ctx context.Context, server string, user id.UserID, event matrixrtc.DelayID) (matrixrtc.ScheduledEvent, error)
	// Delegate returns once the leave is stored. Errors are
	// [matrixrtc.ErrTooManyLeaves], [matrixrtc.ErrStopping] and others.
	Delegate(ctx context.Context, l matrixrtc.DelayedLeave) error
}

// tooManyLeavesWait is when somebody with too many leaves may come again: some
// of them are done with by then.
const tooManyLeavesWait = time.Minute

// milliseconds is a number of milliseconds as clients may write it: any JSON
// number. One that is out of reach is as far as can be counted.
type milliseconds int64

// maxMilliseconds still fits a [time.Duration].
const maxMilliseconds = milliseconds(math.MaxInt64 / int64(time.Millisecond))

// UnmarshalJSON implements [json.Unmarshaler].
func (m *milliseconds) UnmarshalJSON(data []byte) error {
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	// With an error it is infinite, or data was no number.
	n, err := strconv.ParseFloat(string(data), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return &json.UnmarshalTypeError{Value: "not a number"} // the decoder says of what
	}
	switch {
	case n >= float64(maxMilliseconds):
		*m = maxMilliseconds
	case n <= -float64(maxMilliseconds):
		*m = -maxMilliseconds
	default:
		*m = milliseconds(math.Ceil(n)) // a fraction is more than nothing
	}
	return nil
}

func (m milliseconds) duration() time.Duration { return time.Duration(m) * time.Millisecond }

// delayFields hand a delayed leave over: together with a token request, which
// is deprecated, or by a request of their own (MSC4140, MSC4195). Clients add
// delay_cs_api_url, which is not read: servers say themselves where they are.
type delayFields struct {
	DelayID      matrixrtc.DelayID `json:"delay_id"`
	DelayTimeout milliseconds      `json:"delay_timeout"`
}

// check refuses half a delegation. "." and ".." would be no segment of a path.
func (d delayFields) check(required bool) error {
	missing := d.DelayID == "" || d.DelayTimeout <= 0
	switch {
	case !required && d.DelayID == "" && d.DelayTimeout == 0:
		return nil
	case missing && required:
		return mautrix.MBadJSON.WithMessage("delay_id and delay_timeout are required, and delay_timeout is more than 0")
	case missing:
		return mautrix.MBadJSON.WithMessage("delay_id and delay_timeout go together, and delay_timeout is more than 0")
	case d.DelayID == "." || d.DelayID == "..":
		return mautrix.MBadJSON.WithMessage("delay_id is not one that a homeserver makes")
	}
	return nil
}

// asked tells whether a leave is handed over.
func (d delayFields) asked() bool { return d.DelayID != "" }

// delegates tells whether leaves are taken over here.
func (s *Service) delegates() bool {
	return s.leaves != nil && s.config.Load().Delegation && s.leaves.Available()
}

// mayDelegate refuses a leave before anything is made for the request. On the
// routes for tokens Element Call repeats its request without the leave on
// exactly M_BAD_JSON; ignoring it would leave its event an hour away.
func (s *Service) mayDelegate(ctx context.Context, r *tokenRequest, access matrixrtc.Access) error {
	switch {
	case !r.delay.asked():
		return nil
	case !access.Create && r.route.givesNoToken():
		return mautrix.MForbidden.WithMessage("delayed leaves of this server's users are not taken over here")
	case !access.Create:
		return mautrix.MBadJSON.WithMessage("delayed leaves of this server's users are not taken over here; ask again without delay_id and delay_timeout")
	}
	if err := s.leaves.Reachable(ctx, r.server()); err != nil {
		s.log.Debug().Err(err).Msg("The client API of a homeserver is not found")
		return mautrix.MBadJSON.WithMessage("the homeserver's client API could not be found, so the delayed leave is not taken over")
	}
	return nil
}

// delegate hands the leave of a request over.
func (s *Service) delegate(ctx context.Context, r *tokenRequest, user id.UserID) error {
	member := matrixrtc.Member{UserID: user, DeviceID: r.deviceID, ID: r.memberID}
	leave := matrixrtc.DelayedLeave{
		Room:     r.slot.SFURoom(),
		Identity: r.identity(user),
		User:     user,
		Server:   r.server(),
		DelayID:  r.delay.DelayID,
		Delay:    r.delay.DelayTimeout.duration(),
	}
	if r.route != routeLegacy && r.deviceID != "" && !strings.Contains(string(r.deviceID), ":") {
		// The same client may have asked for its token at /sfu/get, which takes
		// no colon: the identity could be that of another server's user.
		leave.Also = member.LegacyIdentity()
	}
	err := s.leaves.Delegate(ctx, leave)
	switch {
	case errors.Is(err, matrixrtc.ErrTooManyLeaves):
		return limitError{tooManyLeavesWait}
	case errors.Is(err, matrixrtc.ErrStopping):
		return mautrix.RespError{ErrCode: "M_UNKNOWN", StatusCode: http.StatusServiceUnavailable,
			Err: "the service is stopping; try again"}
	}
	return err
}

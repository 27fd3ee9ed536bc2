package crowd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/synapse"
	"passerelle/demo/timing"
)

// client is one device in one call. What it notes is read when all are done.
type client struct {
	part
	run  *run
	user *synapse.User
	room id.RoomID

	// member is what it is called in sticky events.
	member  string
	delayID string
	// leaving is when it began to leave or was killed; zero where it did not.
	leaving time.Time
	// identity and sfuRoom are LiveKit's names; permission is what the token lets
	// it do there.
	identity, sfuRoom string
	permission        *livekit.ParticipantPermission
}

// key is that of its events.
func (c *client) key() string {
	if c.sticky {
		return c.member
	}
	return c.user.StateKey(c.device())
}

// play plays the part, and tells when it has come. It has a turn when it begins,
// and none while it stays. Nobody leaves before all have come.
func (c *client) play(ctx context.Context, came func()) error {
	err := c.join(ctx)
	c.run.done()
	came()
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if c.end == stays {
		return nil
	}
	if err := timing.Wait(ctx, c.stay); err != nil {
		return err
	}
	if c.end != killed && c.end != unreported {
		select {
		case <-c.run.full:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := c.run.turn(ctx); err != nil {
		return err
	}
	defer c.run.done()
	if err := c.leave(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	c.run.went()
	return nil
}

// join does what a client does: the delayed leave first, then the membership,
// then the token, with which Passerelle gets the leave, then the SFU.
func (c *client) join(ctx context.Context) error {
	c.member = rand.Text()
	delay, focus := c.run.options.Delay, c.run.place.public
	var err error
	if c.sticky {
		if c.delayID, err = c.user.DelayStickyLeave(ctx, c.room, c.member, delay); err == nil {
			err = c.user.EnterStickyCall(ctx, c.room, c.member, c.device(), focus)
		}
	} else {
		if c.delayID, err = c.user.DelayLeave(ctx, c.room, c.device(), delay); err == nil {
			err = c.user.EnterCall(ctx, c.room, c.device(), focus)
		}
	}
	if err != nil {
		return err
	}
	if err := c.handOver(ctx); err != nil {
		return err
	}
	c.run.place.sfu.join(c.sfuRoom, c.identity, c.permission)
	c.run.arrived()
	return nil
}

// handOver asks for a token and hands the leave over.
func (c *client) handOver(ctx context.Context) error {
	leave := map[string]any{"delay_id": c.delayID, "delay_timeout": c.run.options.Delay.Milliseconds()}
	if c.route == proxied {
		base, body := c.user.HomeserverURL.String()+string(proxied), map[string]any{
			"url": "ws" + c.run.place.public[len("http"):], "room_id": c.room, "slot_id": "m.call#ROOM", "member_id": c.member}
		if err := c.token(ctx, base+"get_token", body); err != nil {
			return err
		}
		add(body, leave)
		_, err := c.post(ctx, base+"delegate_delayed_leave", body)
		return err
	}
	openID, err := c.user.OpenIDToken(ctx)
	if err != nil {
		return err
	}
	body := map[string]any{"openid_token": openID}
	if c.route == legacy {
		body["room"], body["device_id"] = c.room, c.device()
	} else {
		body["room_id"], body["slot_id"] = c.room, "m.call#ROOM"
		body["member"] = map[string]any{"id": c.member, "claimed_user_id": c.user.UserID, "claimed_device_id": c.device()}
	}
	if c.route != separate {
		add(body, leave)
		return c.token(ctx, c.run.place.public+string(c.route), body)
	}
	if err := c.token(ctx, c.run.place.public+string(inline), body); err != nil {
		return err
	}
	add(body, leave)
	_, err = c.post(ctx, c.run.place.public+string(separate), body)
	return err
}

func add(body, more map[string]any) {
	for key, value := range more {
		body[key] = value
	}
}

// token gets a token and reads the names in it.
func (c *client) token(ctx context.Context, address string, body any) error {
	answer, err := c.post(ctx, address, body)
	if err != nil {
		return err
	}
	var got struct{ JWT string }
	if err := json.Unmarshal(answer, &got); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	var claims struct {
		jwt.RegisteredClaims
		Video auth.VideoGrant `json:"video"`
	}
	if _, _, err := jwt.NewParser().ParseUnverified(got.JWT, &claims); err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	c.identity, c.sfuRoom, c.permission = claims.Subject, claims.Video.Room, claims.Video.ToPermission()
	return nil
}

// leave ends the part.
func (c *client) leave(ctx context.Context) (err error) {
	// Homeservers count in milliseconds.
	c.leaving = time.Now().Truncate(time.Millisecond)
	switch c.end {
	case button:
		err = c.user.SendDelayed(ctx, c.delayID)
	case own:
		if c.sticky {
			err = c.user.LeaveStickyCall(ctx, c.room, c.member)
		} else {
			err = c.user.LeaveCall(ctx, c.room, c.device())
		}
		if err == nil {
			err = c.user.CancelDelayed(ctx, c.delayID)
		}
	case killed:
		c.run.place.sfu.leave(c.sfuRoom, c.identity, livekit.DisconnectReason_CONNECTION_TIMEOUT)
		return nil
	case unreported:
		c.run.place.sfu.vanish(c.sfuRoom, c.identity)
		return nil
	}
	c.run.place.sfu.leave(c.sfuRoom, c.identity, livekit.DisconnectReason_CLIENT_INITIATED)
	return err
}

// refused is an answer that another try would get again.
type refused struct {
	address string
	status  int
	body    string
}

func (e refused) Error() string {
	return fmt.Sprintf("%s answers %d: %.200s", e.address, e.status, e.body)
}

const (
	patience = 2 * time.Minute
	pause    = 300 * time.Millisecond
)

// post asks Passerelle, which may be away just now, and tries again until it is
// refused for good.
func (c *client) post(ctx context.Context, address string, body any) ([]byte, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		answer, err := c.try(ctx, address, encoded)
		answered, ok := errors.AsType[refused](err)
		if err == nil || ok && answered.status < 500 && answered.status != http.StatusTooManyRequests {
			return answer, err
		}
		if waited := timing.Wait(ctx, pause); waited != nil {
			return nil, errors.Join(err, waited)
		}
	}
}

func (c *client) try(ctx context.Context, address string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if c.route == proxied {
		request.Header.Set("Authorization", "Bearer "+c.user.AccessToken)
	}
	response, err := c.run.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = refused{address, response.StatusCode, string(answer)}
	}
	return answer, err
}

// status is that of a homeserver's answer, or 0.
func status(err error) int {
	if answer, ok := errors.AsType[mautrix.HTTPError](err); ok && answer.Response != nil {
		return answer.Response.StatusCode
	}
	return 0
}

package chaos

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"passerelle/demo/member"
)

// ticket is what a focus gave, and what its token says.
type ticket struct {
	member.Grant
	room, identity string // LiveKit's names
}

// handover is a delayed leave that the focus shall take care of.
type handover struct {
	delayID string
	delay   time.Duration
}

// ask asks the focus for a token, and hands the delayed leave over.
func (r *run) ask(ctx context.Context, how route, room id.RoomID, user id.UserID, device, memberID string, openID json.RawMessage, h handover) (t ticket, err error) {
	body := map[string]any{"openid_token": openID}
	leave := map[string]any{"delay_id": h.delayID, "delay_timeout": h.delay.Milliseconds()}
	if how == legacy {
		body["room"], body["device_id"] = room, device
	} else {
		body["room_id"], body["slot_id"] = room, "m.call#ROOM"
		body["member"] = map[string]any{"id": memberID, "claimed_user_id": user, "claimed_device_id": device}
	}
	path := string(how)
	if how == separate {
		path = string(inline)
	} else {
		add(body, leave)
	}
	answer, err := r.post(ctx, path, body)
	if err != nil {
		return t, err
	}
	if err := t.read(answer); err != nil {
		return t, err
	}
	if how == separate {
		add(body, leave)
		_, err = r.post(ctx, string(separate), body)
	}
	return t, err
}

func add(body, more map[string]any) {
	for key, value := range more {
		body[key] = value
	}
}

// read takes the answer of a focus apart.
func (t *ticket) read(answer []byte) error {
	if err := json.Unmarshal(answer, &t.Grant); err != nil {
		return fmt.Errorf("read what the focus gave: %w", err)
	}
	parts := strings.Split(t.JWT, ".")
	if len(parts) != 3 {
		return errors.New("the focus gave no token")
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	var said struct {
		Sub   string
		Video struct{ Room string }
	}
	if err := json.Unmarshal(claims, &said); err != nil {
		return fmt.Errorf("read the token: %w", err)
	}
	t.identity, t.room = said.Sub, said.Video.Room
	return nil
}

// refused is an answer that another try would get again.
type refused struct {
	path   string
	status int
	body   string
}

func (e refused) Error() string {
	return fmt.Sprintf("%s answers %d: %.200s", e.path, e.status, e.body)
}

// post asks the focus, which may be away just now.
func (r *run) post(ctx context.Context, path string, body any) (answer []byte, err error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	err = patiently(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.home.PublicURL+path, bytes.NewReader(encoded))
		if err != nil {
			return err
		}
		response, err := r.client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if answer, err = io.ReadAll(io.LimitReader(response.Body, 64<<10)); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return refused{path, response.StatusCode, string(answer)}
		}
		return nil
	})
	return answer, err
}

const (
	patience = 60 * time.Second
	pause    = 300 * time.Millisecond
)

// patiently tries until it succeeds, is refused for good, or patience is over:
// servers are killed here, and clients try again.
func patiently(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil || final(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// final says whether an answer would be the same again.
func final(err error) bool {
	status := 0
	if answer, ok := errors.AsType[refused](err); ok {
		status = answer.status
	} else if answer, ok := errors.AsType[mautrix.HTTPError](err); ok && answer.Response != nil {
		status = answer.Response.StatusCode
	}
	// A focus whose homeserver is away cannot prove who asks: 401.
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusUnauthorized
}

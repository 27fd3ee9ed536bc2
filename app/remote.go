package app

import (
	"context"
	"encoding/json"
	"errors"

	"passerelle/focus"
	"passerelle/focus/homeserver"
)

// remote is the way to the services beside other homeservers.
type remote struct{ home *homeserver.Client }

// Post implements [focus.Remote].
func (r remote) Post(ctx context.Context, server, path string, body any) (int, json.RawMessage, error) {
	status, content, err := r.home.Post(ctx, server, path, body)
	if errors.Is(err, homeserver.ErrNoProxy) {
		err = focus.ErrNoRelay
	}
	return status, content, err
}

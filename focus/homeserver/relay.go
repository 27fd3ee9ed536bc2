package homeserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// relayTimeout bounds a request that the homeserver carries to another one.
const relayTimeout = 10 * time.Second

// ErrNoProxy is returned when the homeserver carries nothing for us, and would
// not the next time either: it does not know the question (MSC4512), our token
// or our prefix.
var ErrNoProxy = errors.New("the homeserver carries no requests to others for us")

// Post has the homeserver send the body to a path below
// /_matrix/federation/…/rtc/livekit of another homeserver, which it signs for
// (MSC4512, fed_proxy), and returns that one's status and JSON, which may be of
// any shape and nothing at all. An error means that there was no answer of it:
// [ErrNoProxy], a [Refusal] of our own homeserver, or why that one was silent.
// Ours refuses a wrong destination or path with codes of their own; those are
// our mistakes, and no sign that it carries nothing.
func (c *Client) Post(ctx context.Context, server, path string, body any) (status int, content json.RawMessage, err error) {
	var answer struct {
		Status  int             `json:"status"`
		Content json.RawMessage `json:"content"`
	}
	err = c.ask(ctx, question{
		name: "fed_proxy", method: http.MethodPost, timeout: relayTimeout,
		path: clientAPI + "unstable/io.element.msc4512/appservice/fed_proxy",
		body: struct {
			Destination string `json:"destination"`
			Method      string `json:"method"`
			Path        string `json:"path"`
			Body        any    `json:"body"`
		}{server, http.MethodPost, path, body},
	}, &answer)
	switch {
	case refused(err, http.StatusNotFound, "M_UNRECOGNIZED"), refused(err, http.StatusForbidden, "M_FORBIDDEN"),
		refused(err, http.StatusBadRequest, "IO.ELEMENT.MSC4512.M_FEDPROXY_NO_PROXY_PREFIX"):
		return 0, nil, ErrNoProxy
	case err != nil:
		return 0, nil, err
	case answer.Status == 0:
		return 0, nil, errors.New("its answer has no status")
	}
	return answer.Status, answer.Content, nil
}

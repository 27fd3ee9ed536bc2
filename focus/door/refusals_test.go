package door_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/focus/door"
)

// What a refusal looks like is what makes clients stop, and what they tell their
// users.
func TestRefusalsThatClientsUnderstand(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		text   string
	}{
		{door.ErrRefused, http.StatusForbidden, "this token does not admit to the call"},
		{door.ErrNoRoom, http.StatusNotFound, "requested room does not exist"}, // LiveKit's, for which clients look
		{door.ErrFull, http.StatusTooManyRequests, "the call is full"},
		{io.ErrUnexpectedEOF, http.StatusServiceUnavailable, "the media server is not available"},
	} {
		server, _ := serve(t, func(context.Context, string) (door.Pass, error) {
			return door.Pass{}, fmt.Errorf("%w: %s", c.err, "SECRET")
		})
		answer, err := http.Get(server.URL + "/rtc/v1/validate?access_token=good")
		require.NoError(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.Equal(t, c.status, answer.StatusCode, c.err)
		require.Equal(t, c.text+"\n", string(body))
	}
}

// What the SFU answers instead of a connection is passed on; that it does not
// know our key is not the client's fault, and the token in that answer is
// nobody's business.
func TestTheSFUsRefusals(t *testing.T) {
	for _, c := range []struct {
		sfu, client int
		said, body  string
	}{
		{404, 404, "requested room does not exist", "requested room does not exist"},
		{429, 429, "requested room does not exist", "requested room does not exist"},
		{503, 503, "requested room does not exist", "requested room does not exist"},
		{401, 503, "invalid API key: door-key", "the media server is not available\n"},
		{403, 503, "requested room does not exist", "the media server is not available\n"},
		{401, 403, "no permissions to access the room", "the parameters ask for more than the token gives\n"},
	} {
		sfu := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "https://sfu.example")
			w.WriteHeader(c.sfu)
			_, _ = io.WriteString(w, c.said)
		}))
		address, err := url.Parse(sfu.URL)
		require.NoError(t, err)
		server, _ := serve(t, admitGood(address))
		for _, route := range door.Routes {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+route+"?access_token=good", nil)
			require.NoError(t, err)
			if !strings.HasSuffix(route, "validate") {
				request.Header.Set("Connection", "keep-alive, Upgrade")
				request.Header.Set("Upgrade", "websocket")
			}
			answer, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			body, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			_ = answer.Body.Close()
			require.Equal(t, c.client, answer.StatusCode, route)
			require.Equal(t, c.body, string(body), route)
			require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"))
		}
		sfu.Close()
	}
}

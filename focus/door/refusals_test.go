package door_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
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

package app_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

const (
	transportsV1       = "/_matrix/client/v1/rtc/transports"
	transportsUnstable = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"
	wellKnown          = "/.well-known/matrix/client"
)

// announced asks the public listener as a browser does.
func (p *program) announced(t *testing.T, method, path string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, p.public+path, nil)
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer of-a-client")
	request.Header.Set("Origin", "https://element.example.org")
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, "*", answer.Header.Get("Access-Control-Allow-Origin"), "%s %s", method, path)
	return answer, string(body)
}

// TestAnnouncements: what Passerelle says in its homeserver's place, letter by
// letter what `passerelle transports` prints for it.
func TestAnnouncements(t *testing.T) {
	file := filepath.Join(t.TempDir(), "client.json")
	require.NoError(t, os.WriteFile(file, []byte(`{
		"m.homeserver": {"base_url": "https://matrix.example.org"},
		"org.matrix.msc2965.authentication": {"issuer": "https://auth.example.org/", "account": "https://auth.example.org/account/"},
		"m.identity_server": null
	}`), 0o600))
	p := startWith(t, zerolog.Nop(), fmt.Sprintf(`
homeserver: {server_name: example.org, url: "http://127.0.0.1:1", listen: "127.0.0.1:0", hs_token: 7c1e4f0da9d02b586e3f7a1c4d9b0e2f}
announce: {transports: true, well_known_file: %q}
`, file))
	const service = `{"type":"livekit","livekit_service_url":"http://127.0.0.1:8080/rtc-focus"`
	bodies := map[string]string{
		transportsV1:       `{"rtc_transports":[` + service + `,"url":"ws://127.0.0.1:8080/rtc-focus"}]}`,
		transportsUnstable: `{"rtc_transports":[` + service + `,"url":"ws://127.0.0.1:8080/rtc-focus"}]}`,
		wellKnown: `{"m.homeserver":{"base_url":"https://matrix.example.org"},"m.identity_server":null,` +
			`"org.matrix.msc2965.authentication":{"issuer":"https://auth.example.org/","account":"https://auth.example.org/account/"},` +
			`"org.matrix.msc4143.rtc_foci":[` + service + `}]}`,
	}
	for path, want := range bodies {
		answer, body := p.announced(t, http.MethodGet, path)
		require.Equal(t, http.StatusOK, answer.StatusCode, path)
		require.Equal(t, want, body)
		require.Equal(t, "application/json", answer.Header.Get("Content-Type"))

		answer, body = p.announced(t, http.MethodHead, path)
		require.Equal(t, http.StatusOK, answer.StatusCode, path)
		require.Empty(t, body)

		answer, body = p.announced(t, http.MethodOptions, path)
		require.Equal(t, http.StatusOK, answer.StatusCode, path)
		require.Empty(t, body)
		require.Equal(t, "GET, HEAD, OPTIONS", answer.Header.Get("Access-Control-Allow-Methods"))
		require.Contains(t, answer.Header.Get("Access-Control-Allow-Headers"), "Authorization")

		answer, body = p.announced(t, http.MethodPost, path)
		require.Equal(t, http.StatusMethodNotAllowed, answer.StatusCode, path)
		require.Contains(t, body, "M_UNRECOGNIZED")
	}
	answer, _ := p.announced(t, http.MethodGet, "/.well-known/matrix/server")
	require.Equal(t, http.StatusNotFound, answer.StatusCode, "other servers' way to the homeserver is none of our business")
}

// TestNothingIsAnnouncedByDefault: each of both is switched on by itself, and
// no url is announced where nothing is handed over.
func TestNothingIsAnnouncedByDefault(t *testing.T) {
	p := startProgram(t)
	for _, path := range []string{transportsV1, transportsUnstable, wellKnown} {
		answer, body := p.announced(t, http.MethodGet, path)
		require.Equal(t, http.StatusNotFound, answer.StatusCode, path)
		require.Contains(t, body, "M_UNRECOGNIZED")
	}
	p = startWith(t, zerolog.Nop(), "\nannounce: {transports: true}\n")
	_, body := p.announced(t, http.MethodGet, transportsV1)
	require.Equal(t, `{"rtc_transports":[{"type":"livekit","livekit_service_url":"http://127.0.0.1:8080/rtc-focus"}]}`, body)
	answer, _ := p.announced(t, http.MethodGet, wellKnown)
	require.Equal(t, http.StatusNotFound, answer.StatusCode)
}

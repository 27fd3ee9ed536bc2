package town_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/federation"

	"passerelle/demo/town"
)

const signedURI = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"

// signingKey is the one of the ministry's Synapse, from its file.
func signingKey(t *testing.T, m *town.Ministry) *federation.SigningKey {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(m.Config), "synapse", "signing.key"))
	require.NoError(t, err)
	key, err := federation.ParseSynapseKey(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	return key
}

// reconfigure changes the configuration of a ministry's Passerelle and starts it
// again.
func reconfigure(t *testing.T, m *town.Ministry, old, fresh string) {
	t.Helper()
	config, err := os.ReadFile(m.Config)
	require.NoError(t, err)
	require.Contains(t, string(config), old)
	require.NoError(t, os.WriteFile(m.Config, []byte(strings.Replace(string(config), old, fresh, 1)), 0o600))
	require.NoError(t, m.KillPasserelle())
	require.NoError(t, m.StartPasserelle(t.Context()))
}

// sendSigned sends it to Intérieur's Passerelle, past its homeserver, as signed
// by Finances' one.
func sendSigned(t *testing.T, w *town.Town, key *federation.SigningKey, destination string, body map[string]any) answer {
	t.Helper()
	content, err := json.Marshal(body)
	require.NoError(t, err)
	origin := w.Finances.Homeserver.Name
	signature, err := key.SignJSON(map[string]any{
		"method": http.MethodPost, "uri": signedURI, "origin": origin, "destination": destination, "content": body,
	})
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.Interieur.PublicURL+signedURI, strings.NewReader(string(content)))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	// As Synapse orders the parameters.
	request.Header.Set("Authorization", fmt.Sprintf(`X-Matrix origin="%s",key="%s",sig="%s",destination="%s"`, origin, key.ID, signature, destination))
	got, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	return answer{got.StatusCode, string(text), got.Header}
}

// TestOtherServers: what reaches a ministry's media server from another one
// beyond the usual way.
func TestOtherServers(t *testing.T) {
	w, _ := newTown(t)
	t.Run("signed", func(t *testing.T) { testSigned(t, w) })
	t.Run("by url", func(t *testing.T) { testByURL(t, w) })
}

// testSigned: what a real Synapse's key has signed gets a token from Passerelle
// itself, which asks that Synapse for its keys, and nothing else does.
func testSigned(t *testing.T, w *town.Town) {
	reconfigure(t, w.Interieur, "federation:\n", "federation:\n    signed_requests: true\n")
	key, own := signingKey(t, w.Finances), w.Interieur.Homeserver.Name
	body := func(user any) map[string]any {
		return map[string]any{"user_id": user, "url": sfu(w.Interieur), "room_id": w.Room, "slot_id": slot, "member_id": "m"}
	}
	bruno := w.Finances.User.UserID
	require.NotEmpty(t, sendSigned(t, w, key, own, body(bruno)).jwt(t))

	stranger := federation.GenerateSigningKey()
	for name, got := range map[string]answer{
		"another key":            sendSigned(t, w, stranger, own, body(bruno)),
		"Intérieur's key":        sendSigned(t, w, signingKey(t, w.Interieur), own, body(bruno)),
		"to another server":      sendSigned(t, w, key, "else.example", body(bruno)),
		"a user of Intérieur":    sendSigned(t, w, key, own, body(w.Interieur.User.UserID)),
		"who is not in the room": sendSigned(t, w, key, own, body("@nobody:"+w.Finances.Homeserver.Name)),
	} {
		require.Equal(t, http.StatusForbidden, got.Status, "%s: %s", name, got.Body)
	}
}

// testByURL: a client that names Intérieur's media server, and not Intérieur,
// gets its token through Finances' homeserver, once the rules say whose it is.
func testByURL(t *testing.T, w *town.Town) {
	ask := func() answer {
		return post(t, w.Finances.Homeserver.ClientURL+"/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token",
			w.Finances.User.AccessToken, map[string]any{"url": sfu(w.Interieur), "room_id": w.Room, "slot_id": slot, "member_id": "m"})
	}
	got := ask()
	require.Equal(t, http.StatusBadRequest, got.Status, got.Body)
	require.Contains(t, got.Body, "M_INVALID_PARAM")

	rule := "server: " + w.Interieur.Homeserver.Name + "\n"
	reconfigure(t, w.Finances, rule, rule+"          transports: ["+sfu(w.Interieur)+"]\n")
	require.NotEmpty(t, ask().jwt(t))
}

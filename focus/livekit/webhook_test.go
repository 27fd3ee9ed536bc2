package livekit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

type recorder struct {
	events []matrixrtc.SFUEvent
	err    error
}

func (r *recorder) HandleSFUEvent(_ context.Context, e matrixrtc.SFUEvent) error {
	if r.err != nil {
		return r.err
	}
	r.events = append(r.events, e)
	return nil
}

func signedWebhook(t testing.TB, key, secret, body string) *http.Request {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	token, err := auth.NewAccessToken(key, secret).SetValidFor(5 * time.Minute).
		SetSha256(base64.StdEncoding.EncodeToString(sum[:])).ToJWT()
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodPost, "/sfu_webhook", strings.NewReader(body))
	r.Header.Set("Authorization", token)
	r.Header.Set("Content-Type", "application/webhook+json")
	return r
}

func newTestWebhook(r receiver) *Webhook {
	return NewWebhook(WebhookOptions{Key: testKey, Secret: testSecret, Receiver: r,
		Log: zerolog.Nop(), Registerer: prometheus.NewRegistry()})
}

const leftBody = `{"event":"participant_left","id":"EV_1","createdAt":"1793000123","room":{"sid":"RM_1","name":"roomhash"},
	"participant":{"sid":"PA_1","identity":"@ana:demo.example:DEV","state":"DISCONNECTED","disconnectReason":"CLIENT_INITIATED","newField":1}}`

func TestWebhookTranslates(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []matrixrtc.SFUEvent
	}{
		"participant left": {leftBody, []matrixrtc.SFUEvent{{
			ID: "EV_1", Type: matrixrtc.ParticipantLeft, Room: "roomhash", At: time.Unix(1793000123, 0),
			Identity: "@ana:demo.example:DEV", ParticipantSID: "PA_1", Reason: "CLIENT_INITIATED",
		}}},
		"participant joined, no time, few fields": {
			`{"event":"participant_joined","id":"EV_2","createdAt":0,"room":{"name":"r"},"participant":{"identity":"i"}}`,
			[]matrixrtc.SFUEvent{{ID: "EV_2", Type: matrixrtc.ParticipantJoined, Room: "r", Identity: "i"}},
		},
		"room finished": {`{"event":"room_finished","id":"EV_3","room":{"name":"r"}}`,
			[]matrixrtc.SFUEvent{{ID: "EV_3", Type: matrixrtc.RoomFinished, Room: "r"}}},
		"an agent is nobody":    {`{"event":"participant_joined","room":{"name":"r"},"participant":{"identity":"i","kind":"AGENT"}}`, nil},
		"the hidden are nobody": {`{"event":"participant_joined","room":{"name":"r"},"participant":{"identity":"i","permission":{"hidden":true}}}`, nil},
		"no room":               {`{"event":"egress_started","egressInfo":{"egressId":"x"}}`, nil},
		"a track":               {`{"event":"track_published","room":{"name":"r"},"participant":{"identity":"i"},"track":{"sid":"TR"}}`, nil},
		"an event of tomorrow":  {`{"event":"room_teleported","room":{"name":"r"}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got recorder
			w := httptest.NewRecorder()
			newTestWebhook(&got).ServeHTTP(w, signedWebhook(t, testKey, testSecret, c.body))
			require.Equal(t, http.StatusOK, w.Code)
			require.Equal(t, c.want, got.events)
		})
	}
}

func TestWebhookRefuses(t *testing.T) {
	unsigned := signedWebhook(t, testKey, testSecret, leftBody)
	unsigned.Header.Del("Authorization")
	tampered := signedWebhook(t, testKey, testSecret, leftBody)
	tampered.Body = http.NoBody
	flipped := signedWebhook(t, testKey, testSecret, leftBody)
	flipped.Body = readCloser(strings.Replace(leftBody, "PA_1", "PA_2", 1))
	huge := signedWebhook(t, testKey, testSecret, `{"id":"`+strings.Repeat("x", maxWebhook)+`"}`)
	for name, c := range map[string]struct {
		request *http.Request
		status  int
	}{
		"unsigned":       {unsigned, 401},
		"body gone":      {tampered, 401},
		"body changed":   {flipped, 401},
		"too large":      {huge, 401},
		"another key":    {signedWebhook(t, "APIother", testSecret, leftBody), 401},
		"another secret": {signedWebhook(t, testKey, testSecret+"x", leftBody), 401},
		"not an event":   {signedWebhook(t, testKey, testSecret, `[1]`), 401},
		"not a POST":     {httptest.NewRequest(http.MethodGet, "/sfu_webhook", nil), 405},
	} {
		t.Run(name, func(t *testing.T) {
			var got recorder
			w := httptest.NewRecorder()
			newTestWebhook(&got).ServeHTTP(w, c.request)
			require.Equal(t, c.status, w.Code)
			require.Empty(t, got.events)
		})
	}
}

func TestWebhookThatCannotBeRecordedIsAskedForAgain(t *testing.T) {
	w := httptest.NewRecorder()
	newTestWebhook(&recorder{err: errors.New("disk full")}).ServeHTTP(w, signedWebhook(t, testKey, testSecret, leftBody))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.NotContains(t, w.Body.String(), "disk")
}

func readCloser(s string) *nopCloser { return &nopCloser{bytes.NewReader([]byte(s))} }

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

func FuzzWebhookBody(f *testing.F) {
	f.Add(leftBody)
	f.Add(`{"event":"participant_joined","room":{"name":"r"}}`)
	f.Fuzz(func(t *testing.T, body string) {
		var got recorder
		newTestWebhook(&got).ServeHTTP(httptest.NewRecorder(), signedWebhook(t, testKey, testSecret, body))
		for _, e := range got.events {
			if e.Room == "" {
				t.Fatalf("an event of no room was recorded: %+v", e)
			}
		}
	})
}

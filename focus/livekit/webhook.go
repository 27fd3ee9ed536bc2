package livekit

import (
	"context"
	"net/http"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/focus/matrixrtc"
)

// maxWebhook bounds the body of one webhook. LiveKit's own are a few KiB.
const maxWebhook = 256 << 10

// receiver is told what the SFU reports. It returns once the event is
// recorded; an error makes LiveKit send it again.
type receiver interface {
	HandleSFUEvent(ctx context.Context, e matrixrtc.SFUEvent) error
}

// Webhook is the handler for LiveKit's webhooks. It checks the signature and
// the hash of the body before it reads the event, answers 401 when they are
// wrong (LiveKit does not repeat those), 503 when the event could not be
// recorded (it repeats those), and 200 once it is.
type Webhook struct {
	keys     auth.KeyProvider
	receiver receiver
	log      zerolog.Logger
	received *prometheus.CounterVec
}

// WebhookOptions are what a Webhook needs; all fields are required.
type WebhookOptions struct {
	Key        string
	Secret     string
	Receiver   receiver
	Log        zerolog.Logger
	Registerer prometheus.Registerer
}

// NewWebhook returns the handler.
func NewWebhook(o WebhookOptions) *Webhook {
	received := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "passerelle_livekit_webhooks_total",
		Help: "Webhooks received from LiveKit, by what became of them: recorded, ignored, refused or failed.",
	}, []string{"outcome"})
	o.Registerer.MustRegister(received)
	return &Webhook{
		keys:     auth.NewSimpleKeyProvider(o.Key, o.Secret),
		receiver: o.Receiver,
		log:      o.Log,
		received: received,
	}
}

// ServeHTTP implements [http.Handler].
func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxWebhook)
	event, err := webhook.ReceiveWebhookEvent(r, h.keys)
	if err != nil {
		h.received.WithLabelValues("refused").Inc()
		h.log.Warn().Str("from", r.RemoteAddr).Msg("Webhook refused: its signature, body or hash is wrong; is livekit's webhook.api_key our key?")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	e, known := translate(event)
	if !known {
		h.received.WithLabelValues("ignored").Inc()
		return
	}
	if err := h.receiver.HandleSFUEvent(r.Context(), e); err != nil {
		h.received.WithLabelValues("failed").Inc()
		h.log.Err(err).Str("event", string(e.Type)).Msg("Webhook not recorded; LiveKit will repeat it")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	h.received.WithLabelValues("recorded").Inc()
}

// translate puts LiveKit's event into our words. It reports false for events
// that say nothing of who is there, and for participants that are helpers and
// not people.
func translate(event *livekit.WebhookEvent) (matrixrtc.SFUEvent, bool) {
	e := matrixrtc.SFUEvent{
		ID:   event.GetId(),
		Type: matrixrtc.SFUEventType(event.GetEvent()),
		Room: matrixrtc.SFURoom(event.GetRoom().GetName()),
	}
	if event.GetCreatedAt() > 0 {
		e.At = time.Unix(event.GetCreatedAt(), 0)
	}
	if e.Room == "" {
		return e, false
	}
	switch e.Type {
	case matrixrtc.RoomStarted, matrixrtc.RoomFinished:
		return e, true
	case matrixrtc.ParticipantJoined, matrixrtc.ParticipantLeft, matrixrtc.ParticipantAborted:
	default:
		return e, false
	}
	participant := event.GetParticipant()
	if !isPerson(participant) {
		return e, false
	}
	e.Identity = matrixrtc.Identity(participant.GetIdentity())
	e.ParticipantSID = participant.GetSid()
	if e.Type != matrixrtc.ParticipantJoined {
		e.Reason = participant.GetDisconnectReason().String()
	} else {
		e.Publish = permitted(participant.GetPermission())
	}
	return e, true
}

package federationtest

import (
	"encoding/json"
	"net/http"
	"testing"

	"maunium.net/go/mautrix/federation"
	"maunium.net/go/mautrix/id"
)

// Request is a request between homeservers, as it is signed.
type Request struct {
	Method, URI, Origin, Destination string
	Body                             string
}

// Key is what the homeserver signs with.
func (h *Homeserver) Key() *federation.SigningKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.key
}

// Rotate gives the homeserver another key, and returns the one before.
func (h *Homeserver) Rotate() *federation.SigningKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.key
	h.key = federation.GenerateSigningKey()
	return before
}

// Keys makes all later answers to questions for its keys go wrong; nil makes
// them right again.
func (h *Homeserver) Keys(m Misbehaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keysMisbehave = m
}

// KeyRequests is how many questions for its keys came in.
func (h *Homeserver) KeyRequests() int { return int(h.keyRequests.Load()) }

func (h *Homeserver) serverKeys(w http.ResponseWriter, r *http.Request) {
	h.keyRequests.Add(1)
	h.mu.Lock()
	misbehave, key := h.keysMisbehave, h.key
	h.mu.Unlock()
	if misbehave != nil {
		misbehave(h, w, r)
		return
	}
	answer(w, http.StatusOK, key.GenerateKeyResponse(h.Name(), nil))
}

// Published answers with the homeserver's keys after a change, signed again by
// all keys of the list.
func Published(change func(*federation.ServerKeyResponse), signers ...*federation.SigningKey) Misbehaviour {
	return func(h *Homeserver, w http.ResponseWriter, _ *http.Request) {
		said := h.Key().GenerateKeyResponse(h.Name(), nil)
		said.Signatures = nil
		change(said)
		signatures := map[string]map[id.KeyID]string{said.ServerName: {}}
		for _, key := range signers {
			signature, err := key.SignJSON(said)
			if err != nil {
				panic(err)
			}
			signatures[said.ServerName][key.ID] = signature
		}
		said.Signatures = signatures
		answer(w, http.StatusOK, said)
	}
}

// Sign is the Authorization header of a request that the key has signed.
func Sign(t testing.TB, key *federation.SigningKey, r Request) string {
	t.Helper()
	signature, err := key.SignJSON(struct {
		Method      string          `json:"method"`
		URI         string          `json:"uri"`
		Origin      string          `json:"origin"`
		Destination string          `json:"destination"`
		Content     json.RawMessage `json:"content"`
	}{r.Method, r.URI, r.Origin, r.Destination, json.RawMessage(r.Body)})
	if err != nil {
		t.Fatal(err)
	}
	return federation.XMatrixAuth{Origin: r.Origin, Destination: r.Destination, KeyID: key.ID, Signature: signature}.String()
}

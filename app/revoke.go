package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"maunium.net/go/mautrix/id"

	"passerelle/focus"
)

// maxRevocation bounds the body of a revocation.
const maxRevocation = 4 << 10

// revoker takes grants back. focus.Service is one.
type revoker interface {
	Revoke(ctx context.Context, w focus.Whom, why string) (int, error)
}

// revocations is the handler of POST /admin/revoke, on the private listener
// alone. It has no password: it can only take away, and who reaches that
// listener can forge nothing with it. The body is JSON, and must say so, which
// no web page can make a browser do without asking first:
//
//	{"user_id": "@ana:example.org", "room_id": "!room:example.org", "reason": "left the ministry"}
//
// Without room_id the user's grants in all rooms are meant. Answers:
//
//	200 {"revoked": 2}  so many grants were taken back, also when it is 0
//	400                 not such a body
//	415                 not application/json
//	503                 the database could not be reached; nothing was done
type revocations struct{ grants revoker }

// ServeHTTP implements [http.Handler].
func (h revocations) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, "Content-Type must be application/json", http.StatusUnsupportedMediaType)
		return
	}
	var body struct {
		UserID id.UserID       `json:"user_id"`
		RoomID json.RawMessage `json:"room_id"`
		Reason string          `json:"reason"`
	}
	var room id.RoomID
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRevocation))
	// A misspelt room_id would mean all rooms, and so would an empty one.
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&body)
	if err == nil && body.RoomID != nil {
		if err = json.Unmarshal(body.RoomID, &room); err == nil && !strings.HasPrefix(string(room), "!") {
			err = errors.New("room_id is no room")
		}
	}
	if err == nil && decoder.Decode(new(json.RawMessage)) != io.EOF {
		err = errors.New("there is more than one object")
	}
	if err != nil {
		http.Error(w, "the body must be JSON with user_id, and with room_id and reason if you like", http.StatusBadRequest)
		return
	}
	n, err := h.grants.Revoke(r.Context(), focus.Whom{UserID: body.UserID, RoomID: room}, body.Reason)
	switch {
	case errors.Is(err, focus.ErrWhom):
		http.Error(w, "user_id is missing", http.StatusBadRequest)
		return
	case err != nil:
		http.Error(w, "the database could not be reached; nothing was done", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int{"revoked": n})
}

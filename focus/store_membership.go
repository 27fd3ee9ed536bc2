package focus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

// Held is what an identity was given last.
type Held struct {
	// UserID is empty when nothing was given.
	UserID    id.UserID
	Publish   bool
	MayCreate bool
	// Verified: the user was in the room when it was given.
	Verified bool
	Revoked  bool
	// Term is that of its tokens, and SFU has the room.
	Term      int64
	SFU       string
	ExpiresAt time.Time
}

const getHeld = `
	SELECT g.user_id, g.can_publish, g.may_create, g.membership, g.revoked, COALESCE(g.revoked_at, 0), s.sfu, g.expires_at
	FROM call_grant g JOIN call_session s ON s.sfu_room = g.sfu_room
	WHERE g.sfu_room = $1 AND g.identity = $2`

// Held looks up what the identity was given last.
func (s *Store) Held(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (Held, error) {
	var h Held
	var membership string
	var expires int64
	err := s.db.QueryRow(ctx, getHeld, room, who).Scan(&h.UserID, &h.Publish, &h.MayCreate, &membership, &h.Revoked, &h.Term, &h.SFU, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Held{}, nil
	case err != nil:
		return Held{}, fmt.Errorf("look up grant: %w", err)
	}
	h.Verified, h.ExpiresAt = membership == verified, time.UnixMilli(expires)
	return h, nil
}

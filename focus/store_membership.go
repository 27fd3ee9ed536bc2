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
	Verified  bool
	Revoked   bool
	ExpiresAt time.Time
}

const getHeld = `
	SELECT user_id, can_publish, may_create, membership, revoked, expires_at
	FROM call_grant WHERE sfu_room = $1 AND identity = $2`

// Held looks up what the identity was given last.
func (s *Store) Held(ctx context.Context, room matrixrtc.SFURoom, who matrixrtc.Identity) (Held, error) {
	var h Held
	var membership string
	var expires int64
	err := s.db.QueryRow(ctx, getHeld, room, who).Scan(&h.UserID, &h.Publish, &h.MayCreate, &membership, &h.Revoked, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Held{}, nil
	case err != nil:
		return Held{}, fmt.Errorf("look up grant: %w", err)
	}
	h.Verified, h.ExpiresAt = membership == verified, time.UnixMilli(expires)
	return h, nil
}

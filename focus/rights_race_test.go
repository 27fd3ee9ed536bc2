package focus_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// interrupted is an SFU during whose work something else happens, once.
type interrupted struct {
	focus.SFU
	listing, ensuring func()
}

func once(happens *func()) {
	if f := *happens; f != nil {
		*happens = nil
		f()
	}
}

func (i *interrupted) Participants(ctx context.Context, room matrixrtc.SFURoom) ([]matrixrtc.Participant, error) {
	once(&i.listing)
	return i.SFU.Participants(ctx, room)
}

func (i *interrupted) EnsureRoom(ctx context.Context, room matrixrtc.SFURoom, o matrixrtc.RoomOptions) error {
	once(&i.ensuring)
	return i.SFU.EnsureRoom(ctx, room, o)
}

func newInterruptedWorld(t *testing.T, db *dbutil.Database) (*world, *interrupted) {
	t.Helper()
	var sfu *interrupted
	w := newWorldWith(t, db, func(o *focus.Options) {
		sfu = &interrupted{SFU: o.SFUs["embedded"]}
		o.SFUs["embedded"] = sfu
	})
	return w, sfu
}

// hasPolicy puts another policy in force for our users, who are told.
func (w *world) hasPolicy(t *testing.T, publish matrixrtc.Sources) {
	t.Helper()
	w.access["own.example"] = matrixrtc.Access{Join: true, Create: true, Publish: publish}
	require.NoError(t, w.ApplyRights(t.Context(), ""))
}

// isThere is what the SFU says of Ana from now on.
func (w *world) isThere(publish, sends matrixrtc.Sources) {
	w.present = map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: {
		{Identity: ana, SID: "PA_1", Joined: true, JoinedAt: time.Now(), Publish: publish, Sends: sends},
	}}
}

// Rights change while the watch waits for an answer: what it has read before
// that is not how things are, and it neither gives nor takes anything by it.
func TestRightsChangeWhileTheWatchAsks(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w, sfu := newInterruptedWorld(t, db)
		_ = w.grantAna(t)
		w.comes(t, ana, "PA_1", everything)
		const less = "@ana:own.example:DEV [microphone]"
		sfu.listing = func() {
			w.hasPolicy(t, matrixrtc.Microphone)
			w.isThere(matrixrtc.Microphone, matrixrtc.Microphone)
		}
		w.round(t)
		require.Equal(t, []string{less}, w.allowed, "what was taken stays taken")

		const all = "@ana:own.example:DEV [microphone,camera,screen_share]"
		sfu.listing = func() {
			w.hasPolicy(t, everything)
			w.isThere(everything, matrixrtc.Camera)
		}
		w.round(t)
		require.Equal(t, []string{less, all}, w.allowed)
		require.Empty(t, w.removed)

		// The SFU's answer is older than the change.
		sfu.listing = func() { w.hasPolicy(t, everything) }
		w.hasPolicy(t, matrixrtc.Microphone)
		w.isThere(matrixrtc.Microphone, matrixrtc.Microphone|matrixrtc.Camera)
		w.round(t)
		require.Empty(t, w.removed, "she may send it now")
	})
}

// Rights change while somebody who is in the call asks for another token: what
// is written with it is from before, and the watch finds that.
func TestRightsChangeWhileATokenIsAskedFor(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w, sfu := newInterruptedWorld(t, db)
		_ = w.grantAna(t)
		w.comes(t, ana, "PA_1", everything)
		sfu.ensuring = func() { w.hasPolicy(t, matrixrtc.Microphone) }
		ticket := w.grantAna(t)
		w.isThere(matrixrtc.Microphone, matrixrtc.Microphone)
		w.round(t)
		require.Equal(t, matrixrtc.Microphone, w.publish(t, ticket))
		for _, allowed := range w.allowed {
			require.Equal(t, "@ana:own.example:DEV [microphone]", allowed)
		}
		standing, err := w.store.Standing(t.Context(), roomHash, ana)
		require.NoError(t, err)
		require.Equal(t, matrixrtc.Microphone, standing.Publish)

		// Nobody of the server may be there any more.
		w.access["own.example"] = matrixrtc.Access{Join: true, Create: true, Publish: everything}
		sfu.ensuring = func() {
			w.access["own.example"] = matrixrtc.Access{}
			require.NoError(t, w.ApplyRights(t.Context(), ""))
		}
		status, body := w.ask(t, "/sfu/get", legacyRequest)
		require.Equal(t, http.StatusForbidden, status, body)
		w.removed = nil
		w.isThere(matrixrtc.Microphone, 0)
		w.round(t)
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed)
	})
}

// While a room's rules cannot be read the SFU is held to what stands in the row.
func TestTheWatchWithoutRules(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w, r := newWorldWithRules(t, db)
		r.of = map[id.UserID]matrixrtc.Rights{"@ana:own.example": {Join: true, Start: true, Publish: matrixrtc.Microphone}}
		_ = w.grantAna(t)
		w.comes(t, ana, "PA_1", matrixrtc.Microphone)
		r.silent = errors.New("down")
		w.isThere(everything, everything)
		w.round(t)
		require.Equal(t, []string{"@ana:own.example:DEV [microphone]"}, w.allowed)
		w.isThere(matrixrtc.Microphone, matrixrtc.Camera)
		w.round(t)
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed)
	})
}

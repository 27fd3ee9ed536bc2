package focus_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

const everything = matrixrtc.AllSources

// rules are those of rooms, as somebody who reads their events would tell them.
type rules struct {
	mu     sync.Mutex
	of     map[id.UserID]matrixrtc.Rights // nil is unknown
	silent error
	asked  []matrixrtc.SlotKey
}

func (r *rules) Rights(_ context.Context, slot matrixrtc.SlotKey, user id.UserID) (matrixrtc.Rights, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, slot)
	rights, known := r.of[user]
	return rights, known || r.of != nil, r.silent
}

func newWorldWithRules(t *testing.T, db *dbutil.Database) (*world, *rules) {
	t.Helper()
	r := &rules{}
	return newWorldWith(t, db, func(o *focus.Options) { o.Rules = r }), r
}

// comes has the SFU report that somebody has come, who may send what the last
// token says.
func (w *world) comes(t *testing.T, who matrixrtc.Identity, sid string, onSFU matrixrtc.Sources) {
	t.Helper()
	require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: sid, Type: matrixrtc.ParticipantJoined,
		Room: roomHash, Identity: who, ParticipantSID: sid, At: time.Now(), Publish: onSFU}))
}

// publish is what the door lets the ticket send now.
func (w *world) publish(t *testing.T, ticket matrixrtc.Ticket) matrixrtc.Sources {
	t.Helper()
	admission, err := w.Admit(t.Context(), ticket)
	require.NoError(t, err)
	return admission.Publish
}

// A room's rules take from what the policy gives, and add nothing to it.
func TestRightsAreWhatPolicyAndRoomAllow(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for name, c := range map[string]struct {
			server string
			room   *matrixrtc.Rights
			status int
			want   matrixrtc.Sources
			starts bool
		}{
			"nobody knows the room's rules": {"own.example", nil, 200, everything, true},
			"all of it":                     {"own.example", &matrixrtc.Rights{Join: true, Start: true, Publish: everything}, 200, everything, true},
			"only to join":                  {"own.example", &matrixrtc.Rights{Join: true, Publish: everything}, 200, everything, false},
			"only sound":                    {"own.example", &matrixrtc.Rights{Join: true, Start: true, Publish: matrixrtc.Microphone}, 200, matrixrtc.Microphone, true},
			"only to listen":                {"own.example", &matrixrtc.Rights{Join: true, Start: true}, 200, 0, true},
			"nothing":                       {"own.example", &matrixrtc.Rights{}, 403, 0, false},
			"to start and not to join":      {"own.example", &matrixrtc.Rights{Start: true, Publish: everything}, 403, 0, false},
			"more than the policy":          {"friend.example", &matrixrtc.Rights{Join: true, Start: true, Publish: everything}, 200, 0, false},
		} {
			t.Run(name, func(t *testing.T) {
				w, r := newWorldWithRules(t, db)
				if c.room != nil {
					r.of = map[id.UserID]matrixrtc.Rights{id.UserID("@ana:" + c.server): *c.room}
				}
				w.answer = id.UserID("@ana:" + c.server)
				room := "!" + strings.ReplaceAll(name, " ", "")
				body := strings.NewReplacer("!roomid", room, "own.example", c.server).Replace(legacyRequest)
				status, answer := w.ask(t, "/sfu/get", body)
				require.Equal(t, c.status, status, answer)
				require.Equal(t, []matrixrtc.SlotKey{{RoomID: id.RoomID(room + ":example.com"), SlotID: matrixrtc.RoomCallSlot}}, r.asked)
				require.Equal(t, c.starts, len(w.ensured) > 0)
				if c.status != http.StatusOK {
					require.Contains(t, answer, "M_FORBIDDEN")
					require.Empty(t, w.signed)
					return
				}
				require.Equal(t, c.want, w.signed[0].Publish)
			})
		}
	})
}

// What cannot be read gives nobody anything new, and takes nothing from anybody.
func TestRulesThatCannotBeRead(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w, r := newWorldWithRules(t, db)
		r.of = map[id.UserID]matrixrtc.Rights{"@ana:own.example": {Join: true, Start: true, Publish: matrixrtc.Microphone}}
		r.silent = errors.New("SECRET database is down")
		status, answer := w.ask(t, "/sfu/get", legacyRequest)
		require.Equal(t, http.StatusBadGateway, status)
		require.Contains(t, answer, "M_UNKNOWN")
		require.NotContains(t, answer, "SECRET")
		require.Zero(t, count(t, db, "call_grant"))

		r.silent = nil
		ticket := w.grantAna(t)
		w.comes(t, ana, "PA_1", matrixrtc.Microphone)
		r.silent = errors.New("down")
		require.Equal(t, matrixrtc.Microphone, w.publish(t, ticket), "what she had")
		_ = w.grantAna(t)
		require.Equal(t, matrixrtc.Microphone, w.signed[1].Publish, "the same once more")
		require.Error(t, w.ApplyRights(t.Context(), "!roomid:example.com"), "it is to be tried again")
		w.comes(t, ana, "PA_2", matrixrtc.Microphone)
		require.Empty(t, w.allowed)
		require.Empty(t, w.removed)

		w.access["own.example"] = matrixrtc.Access{Join: true, Publish: matrixrtc.Camera, Create: true}
		require.Zero(t, w.publish(t, ticket), "the policy takes all the same")
	})
}

// The policy is another one while people are in a call: the row first, then the
// SFU; whatever token they have, the door lets them send no more than that.
func TestRightsChangeLive(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		ticket := w.grantAna(t)
		w.comes(t, ana, "PA_1", everything)
		require.NoError(t, w.ApplyRights(t.Context(), ""))
		require.Empty(t, w.allowed, "nothing has changed")

		access := func(publish matrixrtc.Sources) {
			w.access["own.example"] = matrixrtc.Access{Join: true, Create: true, Publish: publish}
		}
		access(matrixrtc.Microphone)
		require.NoError(t, w.ApplyRights(t.Context(), "!other:example.com"))
		require.Empty(t, w.allowed, "another room's rules")
		require.NoError(t, w.ApplyRights(t.Context(), "!roomid:example.com"))
		require.Equal(t, []string{"@ana:own.example:DEV [microphone]"}, w.allowed)
		ticket.Publish = everything // as her first token says, and one that LiveKit made before
		require.Equal(t, matrixrtc.Microphone, w.publish(t, ticket))

		access(0)
		require.NoError(t, w.ApplyRights(t.Context(), ""))
		require.Zero(t, w.publish(t, ticket))
		access(everything)
		require.NoError(t, w.ApplyRights(t.Context(), ""))
		require.Equal(t, everything, w.publish(t, ticket), "given back, to the same token")
		require.Equal(t, []string{
			"@ana:own.example:DEV [microphone]", "@ana:own.example:DEV []", "@ana:own.example:DEV [microphone,camera,screen_share]",
		}, w.allowed)

		require.Empty(t, w.removed)
		w.access["own.example"] = matrixrtc.Access{}
		require.NoError(t, w.ApplyRights(t.Context(), ""))
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed, "who may not join any more is put out")
		require.Equal(t, []matrixrtc.Identity{ana}, w.cut)
		require.ErrorIs(t, w.admit(t, ticket), focus.ErrNotAdmitted)
	})
}

// Between the policy's change and its application somebody connects with the
// rights of before: the door decides by the new ones, and so does the report.
func TestRightsChangeWhileSomebodyConnects(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		ticket := w.grantAna(t)
		w.access["own.example"] = matrixrtc.Access{Join: true, Create: true, Publish: matrixrtc.Microphone}
		w.comes(t, ana, "PA_1", everything)
		require.Equal(t, []string{"@ana:own.example:DEV [microphone]"}, w.allowed)
		require.Equal(t, matrixrtc.Microphone, w.publish(t, ticket))
		standing, err := w.store.Standing(t.Context(), roomHash, ana)
		require.NoError(t, err)
		require.Equal(t, matrixrtc.Microphone, standing.Publish)

		w.access["own.example"] = matrixrtc.Access{}
		require.ErrorIs(t, w.admit(t, ticket), focus.ErrNotAdmitted, "before anything was applied")
		w.comes(t, ana, "PA_2", matrixrtc.Microphone)
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed)
	})
}

// An SFU that did not take the change is told again by the watch.
func TestTheWatchRepeatsWhatTheSFUMissed(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		_ = w.grantAna(t)
		w.comes(t, ana, "PA_1", everything)
		w.access["own.example"] = matrixrtc.Access{Join: true, Create: true, Publish: matrixrtc.Microphone | matrixrtc.Camera}
		w.refuses = errors.New("the SFU is away")
		require.NoError(t, w.ApplyRights(t.Context(), ""))
		require.Empty(t, w.allowed)
		w.refuses = nil
		there := func(publish, sends matrixrtc.Sources) {
			w.present = map[matrixrtc.SFURoom][]matrixrtc.Participant{roomHash: {
				{Identity: ana, SID: "PA_1", Joined: true, JoinedAt: time.Now(), Publish: publish, Sends: sends},
			}}
			_, err := w.Reconcile(t.Context(), "")
			require.NoError(t, err)
		}
		there(everything, everything)
		require.Equal(t, []string{"@ana:own.example:DEV [microphone,camera]"}, w.allowed)
		there(matrixrtc.Microphone|matrixrtc.Camera, matrixrtc.Camera)
		require.Len(t, w.allowed, 1, "the SFU has taken it")
		require.Empty(t, w.removed)

		// A picture that is called a sound: the SFU believes it.
		w.access["own.example"] = matrixrtc.Access{Join: true, Create: true, Publish: matrixrtc.Microphone}
		require.NoError(t, w.ApplyRights(t.Context(), ""))
		there(matrixrtc.Microphone, matrixrtc.Microphone|matrixrtc.Camera)
		require.Equal(t, []matrixrtc.Identity{ana}, w.removed)
	})
}

// The hooks reach everybody who is connected, also what changed before anything
// ran, and are tried again where it failed.
func TestChangesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := migrations.Open(t.Context(), migrations.Options{Type: migrations.SQLite, MaxOpenConns: 1})
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		w, r := newWorldWithRules(t, db)
		w.listing = errors.New("the watch stays out of it")
		_ = w.grantAna(t)
		w.comes(t, ana, "PA_1", everything)
		w.access["own.example"] = matrixrtc.Access{Join: true, Create: true, Publish: matrixrtc.Microphone | matrixrtc.Camera}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		allowed := func() []string {
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.allowed
		}
		require.Equal(t, []string{"@ana:own.example:DEV [microphone,camera]"}, allowed(), "from before the start")

		r.of = map[id.UserID]matrixrtc.Rights{"@ana:own.example": {Join: true, Publish: matrixrtc.Microphone}}
		w.RulesChanged("!roomid:example.com")
		require.Len(t, allowed(), 2)
		for n := range 5000 { // rooms of others, more than are kept in mind
			w.RulesChanged(id.RoomID(fmt.Sprint("!", n)))
		}
		require.Len(t, allowed(), 2)
		r.of["@ana:own.example"] = matrixrtc.Rights{Join: true}
		w.RulesChanged("!roomid:example.com")
		require.Len(t, allowed(), 3)

		r.silent = errors.New("down")
		r.of["@ana:own.example"] = matrixrtc.Rights{Join: true, Publish: matrixrtc.Camera}
		w.RightsChanged()
		require.Len(t, allowed(), 3)
		r.mu.Lock()
		r.silent = nil
		r.mu.Unlock()
		time.Sleep(10 * time.Second)
		require.Equal(t, "@ana:own.example:DEV [camera]", allowed()[3])
		cancel()
		require.NoError(t, <-ended)
	})
}

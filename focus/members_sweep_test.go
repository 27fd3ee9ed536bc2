package focus_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

const (
	anaHere  = "@ana:own.example:DEV"
	anaThere = "@ana:own.example:DEV2"
)

var boHere = matrixrtc.Member{UserID: "@bo:friend.example", ID: "m"}.ProxiedIdentity()

// inACall are Ana on two devices and Bo, members of the room and connected.
func inACall(t *testing.T, db *dbutil.Database, change func(*focus.Options)) *world {
	t.Helper()
	w := newWorldWith(t, db, change)
	w.members.in = map[string]bool{"!roomid:example.com @ana:own.example": true, "!roomid:example.com @bo:friend.example": true}
	legacy, federated := ways()[0], ways()[4]
	for _, request := range []string{legacyRequest, strings.NewReplacer(`"DEV"`, `"DEV2"`, `"tok"`, `"tok2"`).Replace(legacyRequest)} {
		status, body := legacy.ask(t, w, request)
		require.Equal(t, http.StatusOK, status, body)
	}
	status, body := federated.ask(t, w, federated.request)
	require.Equal(t, http.StatusOK, status, body)
	for _, who := range []matrixrtc.Identity{anaHere, anaThere, boHere} {
		require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{
			ID: "joined", Type: matrixrtc.ParticipantJoined, Room: roomHash, Identity: who, ParticipantSID: "PA_" + string(who), At: time.Now()}))
	}
	w.members.asked, w.removed = 0, nil
	return w
}

func (w *world) sweep(t *testing.T) {
	t.Helper()
	next, err := w.SweepMembers(t.Context(), focus.InCall{})
	require.NoError(t, err)
	require.Zero(t, next)
}

func TestWhoLeavesTheRoomLeavesTheCall(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := inACall(t, db, required)
		w.sweep(t)
		require.Equal(t, 2, w.members.asked, "one question for each person in a room, whatever the devices")
		require.Empty(t, w.removed)
		require.NoError(t, w.admit(t, w.ticket(anaHere)))

		delete(w.members.in, "!roomid:example.com @ana:own.example")
		w.sweep(t)
		require.ElementsMatch(t, []matrixrtc.Identity{anaHere, anaThere}, w.removed)
		require.ElementsMatch(t, w.removed, w.cut)
		require.ErrorIs(t, w.admit(t, w.ticket(anaHere)), focus.ErrNotAdmitted)
		require.NoError(t, w.admit(t, w.ticket(boHere)))

		w.members.asked = 0
		w.sweep(t)
		require.Equal(t, 1, w.members.asked, "who was put out is not asked for again")
	})
}

// TestASilentHomeserverThrowsNobodyOut: what is not known is no reason.
func TestASilentHomeserverThrowsNobodyOut(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := inACall(t, db, required)
		w.members.in, w.members.silent = nil, errors.New("silent")
		w.sweep(t)
		require.NoError(t, w.MemberGone(t.Context(), "!roomid:example.com", "@ana:own.example"))
		require.Empty(t, w.removed)
		require.Empty(t, w.cut)
		w.members.silent = nil
		require.NoError(t, w.MemberGone(t.Context(), "!roomid:example.com", "@ana:own.example"))
		require.Len(t, w.removed, 2, "when it speaks again, its word counts")
	})
}

// TestMemberGoneAsksAgain: an event may be old, or wrong.
func TestMemberGoneAsksAgain(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := inACall(t, db, required)
		require.NoError(t, w.MemberGone(t.Context(), "!roomid:example.com", "@ana:own.example"))
		require.Equal(t, 1, w.members.asked)
		require.NoError(t, w.MemberGone(t.Context(), "!other:example.com", "@ana:own.example"))
		require.Empty(t, w.removed, "another room's calls are not this one's")
	})
}

// TestOurServerLeavesTheRoom: nobody can say any more who may be there.
func TestOurServerLeavesTheRoom(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := inACall(t, db, required)
		delete(w.members.in, "!roomid:example.com @ana:own.example")
		w.members.away = true
		require.NoError(t, w.MemberGone(t.Context(), "!roomid:example.com", "@ana:own.example"))
		require.ElementsMatch(t, []matrixrtc.Identity{anaHere, anaThere, boHere}, w.removed)
		require.ErrorIs(t, w.admit(t, w.ticket(boHere)), focus.ErrNotAdmitted)
	})
}

// TestInCallsGoesOn where it stopped, so that calls of thousands are asked for
// in rounds.
func TestInCallsGoesOn(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := inACall(t, db, required)
		first, err := w.store.InCalls(t.Context(), focus.InCall{}, 1)
		require.NoError(t, err)
		require.Equal(t, []focus.InCall{{RoomID: "!roomid:example.com", UserID: "@ana:own.example"}}, first)
		rest, err := w.store.InCalls(t.Context(), first[0], 10)
		require.NoError(t, err)
		require.Equal(t, []focus.InCall{{RoomID: "!roomid:example.com", UserID: "@bo:friend.example"}}, rest)
	})
}

func TestUnverifiedSweepsNobody(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := inACall(t, db, func(*focus.Options) {})
		w.members.in = nil
		w.sweep(t)
		require.NoError(t, w.MemberGone(t.Context(), "!roomid:example.com", "@ana:own.example"))
		require.Zero(t, w.members.asked)
		require.Empty(t, w.removed)
	})
}

// TestASharedSFUKeepsOut whom the homeserver had put out of the room, and
// leaves those alone whom somebody else let in.
func TestASharedSFUKeepsOut(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := inACall(t, db, func(o *focus.Options) { required(o); o.SharedSFU = true })
		comes := func(who matrixrtc.Identity) {
			t.Helper()
			w.removed = nil
			require.NoError(t, w.HandleSFUEvent(t.Context(), matrixrtc.SFUEvent{ID: "again", Type: matrixrtc.ParticipantJoined,
				Room: roomHash, Identity: who, ParticipantSID: "PA_again_" + string(who), At: time.Now()}))
		}
		delete(w.members.in, "!roomid:example.com @ana:own.example")
		w.sweep(t)
		require.ElementsMatch(t, []matrixrtc.Identity{anaHere, anaThere}, w.removed)
		comes(anaHere)
		require.Equal(t, []matrixrtc.Identity{anaHere}, w.removed, "by the token that she still has")
		for _, who := range []matrixrtc.Identity{boHere, "@somebody:own.example:DEV"} {
			comes(who)
			require.Empty(t, w.removed, who)
		}
		w.members.in["!roomid:example.com @ana:own.example"] = true
		status, body := ways()[0].ask(t, w, legacyRequest)
		require.Equal(t, http.StatusOK, status, body)
		comes(anaHere)
		require.Empty(t, w.removed, "a new token is good")
	})
}

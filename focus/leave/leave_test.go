package leave_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"passerelle/focus/matrixrtc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hour = time.Hour

// Each is a row of what services for delayed leaves have agreed on, and of
// what they got wrong.
func TestWhatBecomesOfALeave(t *testing.T) {
	for name, test := range map[string]func(w *town){
		"nobody connects: sent when the delay is over": func(w *town) {
			w.hand("ana", "d1", 30*time.Second)
			w.pass(29 * time.Second)
			require.Empty(w.t, w.home.got("", ""))
			w.pass(2 * time.Second)
			require.Len(w.t, w.home.got("send", "d1"), 1)
			require.Empty(w.t, w.rows())
		},
		"nobody connects: not more than an hour": func(w *town) {
			w.hand("ana", "d1", 5*hour)
			w.pass(hour - time.Second)
			require.Empty(w.t, w.home.got("", ""))
			w.pass(2 * time.Second)
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"it is there already: put off at once": func(w *town) {
			w.set("ana", "PA_1")
			w.hand("ana", "d1", hour)
			require.Len(w.t, w.home.got("restart", "d1"), 1)
			require.Less(w.t, w.home.got("restart", "d1")[0].at, 10*time.Millisecond)
		},
		"it is there, and its report is lost": func(w *town) {
			w.hand("ana", "d1", hour)
			w.set("ana", "PA_1")
			w.pass(2 * time.Second)
			require.Len(w.t, w.home.got("restart", "d1"), 1)
		},
		"its attempt to connect fails: ends and sends nothing": func(w *town) {
			w.hand("ana", "d1", 30*time.Second)
			w.report(matrixrtc.ParticipantAborted, "ana", "PA_1", "JOIN_FAILURE")
			w.pass(time.Minute)
			require.Empty(w.t, w.home.got("", ""))
			require.Empty(w.t, w.rows())
			require.Equal(w.t, "fired", w.home.fate("d1"))
		},
		"its second attempt comes through": func(w *town) {
			w.hand("ana", "d1", hour)
			w.report(matrixrtc.ParticipantAborted, "ana", "PA_1", "JOIN_FAILURE")
			w.joins("ana", "PA_2")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", ""))
			w.leaves("ana", "PA_2", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"it says goodbye: sent at once, although the SFU still lists it": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.report(matrixrtc.ParticipantLeft, "ana", "PA_1", "CLIENT_INITIATED")
			require.Len(w.t, w.home.got("send", "d1"), 1)
			require.Empty(w.t, w.rows())
		},
		"it says goodbye while the SFU does not answer": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.down(true)
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Len(w.t, w.home.got("send", "d1"), 1)
		},
		"it goes for another reason: sent once confirmed": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "SIGNAL_CLOSE")
			require.Len(w.t, w.home.got("send", "d1"), 1)
		},
		"the SFU says that it went, and that it is there": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.set("ana", "PA_2")
			w.report(matrixrtc.ParticipantLeft, "ana", "PA_1", "SIGNAL_CLOSE")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", ""))
			require.Empty(w.t, w.home.fate("d1"))
		},
		"it disappears, and nothing is reported: two looks": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.set("ana", "")
			w.pass(62 * time.Second)
			require.Empty(w.t, w.home.got("send", ""), "one look is not enough")
			w.pass(5 * time.Second)
			require.Len(w.t, w.home.got("send", "d1"), 1)
		},
		"it is put off again and again": func(w *town) {
			w.hand("ana", "d1", 40*time.Minute)
			w.joins("ana", "PA_1")
			w.pass(4 * hour)
			got := w.home.got("restart", "d1")
			require.InDelta(w.t, 4*60/20.5, len(got), 1.5)
			for i := range got[1:] {
				require.InDelta(w.t, 20.5, (got[i+1].at - got[i].at).Minutes(), 0.6)
			}
			require.Empty(w.t, w.home.fate("d1"))
		},
		"the homeserver does not know it any more": func(w *town) {
			w.hand("ana", "d1", hour)
			w.home.forget("d1")
			w.joins("ana", "PA_1")
			require.Empty(w.t, w.rows())
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Empty(w.t, w.home.got("send", ""))
		},
		"another one of the same participant takes its place": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.hand("ana", "d2", hour)
			require.Equal(w.t, "cancelled", w.home.fate("d1"))
			w.pass(3 * hour)
			require.Empty(w.t, w.home.fate("d2"))
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d2"))
			require.Empty(w.t, w.home.got("send", "d1"))
		},
		"it reloads, and the way back breaks once: nothing is sent": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.hand("ana", "d2", hour)
			w.leaves("ana", "PA_1", "DUPLICATE_IDENTITY")
			w.report(matrixrtc.ParticipantAborted, "ana", "PA_2", "SIGNAL_CLOSE")
			w.pass(4 * time.Second)
			require.Empty(w.t, w.home.got("send", ""))
			w.joins("ana", "PA_3")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", ""))
			w.leaves("ana", "PA_3", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d2"))
		},
		"it reloads, and a look sees the way back that breaks: nothing is sent": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.set("ana", "PA_2")
			w.hand("ana", "d2", hour) // looks
			w.report(matrixrtc.ParticipantLeft, "ana", "PA_1", "DUPLICATE_IDENTITY")
			w.set("ana", "")
			w.report(matrixrtc.ParticipantAborted, "ana", "PA_2", "SIGNAL_CLOSE")
			w.pass(time.Second)
			w.joins("ana", "PA_3")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", ""))
		},
		"it reloads, and never comes back": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.hand("ana", "d2", hour)
			w.leaves("ana", "PA_1", "DUPLICATE_IDENTITY")
			w.report(matrixrtc.ParticipantAborted, "ana", "PA_2", "SIGNAL_CLOSE")
			w.pass(7100 * time.Millisecond)
			require.Equal(w.t, "sent", w.home.fate("d2"))
		},
		"the same one twice": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.hand("ana", "d1", hour)
			require.Len(w.t, w.rows(), 1)
			require.Empty(w.t, w.home.got("cancel", ""))
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Len(w.t, w.home.got("send", "d1"), 1)
		},
		"two participants do not get into each other's way": func(w *town) {
			w.hand("ana", "d1", hour)
			w.hand("bo", "d2", hour)
			w.joins("ana", "PA_1")
			w.joins("bo", "PA_2")
			w.leaves("bo", "PA_2", "CLIENT_INITIATED")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", "d1"))
			require.Len(w.t, w.home.got("send", "d2"), 1)
		},
		"it reconnects: left, then joined": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.set("ana", "")
			w.report(matrixrtc.ParticipantLeft, "ana", "PA_1", "DUPLICATE_IDENTITY")
			w.pass(3 * time.Second)
			w.joins("ana", "PA_2")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", ""))
			require.Empty(w.t, w.home.fate("d1"))
		},
		"it reconnects while a look that is older finds nobody": func(w *town) {
			w.timing.MissPause, w.slow = 0, 500*time.Millisecond
			w.stop()
			w.start()
			w.hand("ana", "d1", hour) // looks
			w.report(matrixrtc.ParticipantJoined, "ana", "", "")
			w.report(matrixrtc.ParticipantLeft, "ana", "", "DUPLICATE_IDENTITY")
			w.set("ana", "PA_2")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", ""))
			require.Empty(w.t, w.home.fate("d1"))
		},
		"it reconnects: joined, then left": func(w *town) {
			for _, reason := range []string{"DUPLICATE_IDENTITY", "MIGRATION", "STATE_MISMATCH", "CLIENT_INITIATED", "SIGNAL_CLOSE"} {
				w.hand("ana", "d"+reason, hour)
				w.joins("ana", reason+"1")
				w.joins("ana", reason+"2")
				w.report(matrixrtc.ParticipantLeft, "ana", reason+"1", reason)
			}
			w.pass(2 * hour)
			require.Empty(w.t, w.home.got("send", ""))
		},
		"it was to reconnect and does not": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			w.pass(6900 * time.Millisecond)
			require.Empty(w.t, w.home.got("send", ""))
			w.pass(200 * time.Millisecond)
			require.Len(w.t, w.home.got("send", "d1"), 1)
		},
		"the join of a connection that ended is reported late": func(w *town) {
			w.hand("ana", "d1", 2*hour)
			w.joins("ana", "PA_2")
			w.leaves("ana", "PA_1", "SIGNAL_CLOSE")
			w.report(matrixrtc.ParticipantJoined, "ana", "PA_1", "")
			w.leaves("ana", "PA_2", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"it is back before the leave could be sent": func(w *town) {
			w.home.misbehave(func(what, _ string, _ int) (int, http.Header, string) {
				if what == "send" {
					return -1, nil, ""
				}
				return 0, nil, ""
			})
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "SIGNAL_CLOSE")
			w.joins("ana", "PA_2")
			w.home.misbehave(nil)
			w.pass(2 * hour)
			require.Empty(w.t, w.home.fate("d1"))
			require.Equal(w.t, []string{"connected"}, w.rows())
		},
		"an ID that is a path": func(w *town) {
			const odd = "a/../../send?x=1#y%2F"
			w.hand("ana", odd, hour)
			w.joins("ana", "PA_1")
			require.Len(w.t, w.home.got("restart", odd), 1)
			require.Equal(w.t, "/base/_matrix/client/unstable/org.matrix.msc4140/delayed_events/a%2F..%2F..%2Fsend%3Fx=1%23y%252F/restart",
				w.home.got("", "")[0].path)
		},
		"a room that is not its": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.SFUEvent(w.t.Context(), matrixrtc.SFUEvent{Type: matrixrtc.ParticipantLeft, Room: "other", Identity: "ana", ParticipantSID: "PA_1", Reason: "CLIENT_INITIATED"})
			w.SFUEvent(w.t.Context(), matrixrtc.SFUEvent{Type: matrixrtc.RoomFinished, Room: "other"})
			w.settle()
			require.Empty(w.t, w.home.got("send", ""))
		},
		"its room is closed, and nothing else was reported": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.set("ana", "")
			w.report(matrixrtc.RoomFinished, "", "", "")
			require.Len(w.t, w.home.got("send", "d1"), 1)
		},
	} {
		t.Run(name, func(t *testing.T) { inTown(t, test) })
	}
}

// A client that joined by /sfu/get has another identity than the one it hands
// its leave over with.
func TestBothIdentities(t *testing.T) {
	also := func(d *matrixrtc.DelayedLeave) { d.Also = "@ana:own.example:DEV" }
	for name, test := range map[string]func(w *town){
		"recognised by the other one": func(w *town) {
			w.joins("@ana:own.example:DEV", "PA_1")
			w.hand("hash1", "d1", hour, also)
			require.Len(w.t, w.home.got("restart", "d1"), 1)
			w.leaves("@ana:own.example:DEV", "PA_1", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"a page that is loaded again has one participant": func(w *town) {
			w.hand("hash1", "d1", hour, also)
			w.joins("@ana:own.example:DEV", "PA_1")
			w.hand("hash2", "d2", hour, also)
			require.Equal(w.t, "cancelled", w.home.fate("d1"), "it would end the new page's membership")
			w.joins("@ana:own.example:DEV", "PA_2")
			w.report(matrixrtc.ParticipantLeft, "@ana:own.example:DEV", "PA_1", "DUPLICATE_IDENTITY")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.fate("d2"))
		},
		"two waiting for one participant": func(w *town) {
			w.hand("hash1", "d1", hour, also)
			w.pass(time.Second)
			w.hand("hash2", "d2", hour, also)
			w.joins("@ana:own.example:DEV", "PA_1")
			require.Equal(w.t, "cancelled", w.home.fate("d1"))
			w.leaves("@ana:own.example:DEV", "PA_1", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d2"))
		},
		"memberships of their own": func(w *town) {
			w.hand("hash1", "d1", hour, also)
			w.joins("hash1", "PA_1")
			w.hand("hash2", "d2", hour, also)
			w.joins("hash2", "PA_2")
			require.Empty(w.t, w.home.fate("d1"))
			w.leaves("hash1", "PA_1", "SIGNAL_CLOSE")
			require.Equal(w.t, "sent", w.home.fate("d1"))
			require.Empty(w.t, w.home.fate("d2"))
		},
	} {
		t.Run(name, func(t *testing.T) { inTown(t, test) })
	}
}

// Whatever a client says its delay is, nothing runs hot.
func TestDelays(t *testing.T) {
	inTown(t, func(w *town) {
		for name, delay := range map[string]time.Duration{"d1": time.Millisecond, "d2": 15 * time.Second, "d3": 1 << 62, "d4": 18 * time.Second} {
			who := matrixrtc.Identity("u" + name)
			w.home.schedule(name, 100*hour) // so that it can be put off whenever that is
			w.hand(who, name, delay)
			w.joins(who, "PA_"+name)
		}
		w.pass(time.Minute)
		for name, least := range map[string]int{"d1": 6, "d2": 6, "d3": 1, "d4": 6} {
			got := w.home.got("restart", name)
			require.GreaterOrEqual(w.t, len(got), least)
			for i := range got[1:] {
				require.GreaterOrEqual(w.t, got[i+1].at-got[i].at, 10*time.Second, name)
			}
			require.Empty(w.t, w.home.fate(name))
		}
	}, func(w *town) { w.token = "token" })
}

func TestTooMany(t *testing.T) {
	inTown(t, func(w *town) {
		same := func(d *matrixrtc.DelayedLeave) { d.User = "@ana:own.example" }
		for i := range 20 {
			w.hand(matrixrtc.Identity(rune('a'+i)), "d"+string(rune('a'+i)), hour, same)
		}
		d := matrixrtc.DelayedLeave{Room: room, Identity: "x", User: "@ana:own.example", Server: server, DelayID: "dx", Delay: hour}
		require.ErrorIs(w.t, w.Delegate(w.t.Context(), d), matrixrtc.ErrTooManyLeaves)
		require.Len(w.t, w.rows(), 20)
		d.User = "@bo:own.example"
		require.NoError(w.t, w.Delegate(w.t.Context(), d))
		w.joins("a", "PA_1")
		w.leaves("a", "PA_1", "CLIENT_INITIATED")
		d.User, d.Identity = "@ana:own.example", "y"
		require.NoError(w.t, w.Delegate(w.t.Context(), d), "there is room again")
	})
}

func TestStopping(t *testing.T) {
	inTown(t, func(w *town) {
		w.hand("ana", "d1", hour)
		w.stop()
		defer w.start()
		d := matrixrtc.DelayedLeave{Room: room, Identity: "x", User: "@ana:own.example", Server: server, DelayID: "dx", Delay: hour}
		require.ErrorIs(w.t, w.Delegate(w.t.Context(), d), matrixrtc.ErrStopping)
	})
}

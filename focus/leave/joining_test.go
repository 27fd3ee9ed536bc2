package leave_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

// An SFU lists connections before they are active, and sometimes for ever.
func TestNeverActive(t *testing.T) {
	for name, test := range map[string]func(w *town){
		"it takes a while to come back": func(w *town) {
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			w.lists("ana", "PA_2")
			w.pass(20 * time.Second)
			require.Empty(w.t, w.home.fate("d1"))
			w.joins("ana", "PA_2")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.fate("d1"))
		},
		"it tries and tries": func(w *town) {
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			for _, sid := range []string{"PA_2", "PA_3", "PA_4", "PA_5"} {
				w.lists("ana", sid)
				w.pass(20 * time.Second)
				w.report(matrixrtc.ParticipantAborted, "ana", sid, "SIGNAL_CLOSE")
			}
			w.joins("ana", "PA_6")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.fate("d1"))
		},
		"it never becomes active, and nothing is reported": func(w *town) {
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			w.lists("ana", "PA_2")
			w.pass(24 * time.Second)
			require.Empty(w.t, w.home.fate("d1"))
			w.pass(18 * time.Second)
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"processes are killed meanwhile": func(w *town) {
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			w.lists("ana", "PA_2")
			for range 4 {
				w.pass(8 * time.Second)
				w.stop()
				w.start()
			}
			w.pass(10 * time.Second)
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"processes are killed each eight seconds": func(w *town) {
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			w.lists("ana", "PA_2")
			for range 7 {
				w.pass(8 * time.Second)
				w.stop()
				w.start()
			}
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"the SFU's clock is behind": func(w *town) {
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			w.lists("ana", "PA_2")
			w.since("PA_2", time.Now().Add(-hour))
			w.pass(11 * time.Second) // looks at 7
			w.joins("ana", "PA_2")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.fate("d1"))
		},
		"its end is reported, and it is listed all the same": func(w *town) {
			w.report(matrixrtc.ParticipantLeft, "ana", "PA_1", "CONNECTION_TIMEOUT")
			w.pass(24 * time.Second)
			require.Empty(w.t, w.home.fate("d1"))
			w.pass(3 * time.Second)
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"it is reported to be there, and the list lags": func(w *town) {
			w.lists("ana", "PA_1")
			w.pass(2 * hour)
			require.Empty(w.t, w.home.fate("d1"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, func(w *town) {
				w.hand("ana", "d1", hour)
				w.joins("ana", "PA_1")
				test(w)
			})
		})
	}
}

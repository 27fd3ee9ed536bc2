package leave_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/matrixrtc"
)

// What a homeserver may answer, to each kind of call.
func TestAnswers(t *testing.T) {
	always := func(status int) func(string, string, int) (int, http.Header, string) {
		return func(string, string, int) (int, http.Header, string) { return status, nil, "{}" }
	}
	for name, c := range map[string]struct {
		answers func(what, id string, nth int) (int, http.Header, string)
		test    func(w *town)
	}{
		"a final no to putting it off": {always(403), func(w *town) {
			w.joins("ana", "PA_1")
			require.Empty(w.t, w.rows())
			w.pass(2 * hour)
			require.Len(w.t, w.home.got("", ""), 1)
		}},
		"it ended otherwise": {always(409), func(w *town) {
			w.joins("ana", "PA_1")
			require.Empty(w.t, w.rows())
		}},
		"a final no to sending it": {func(what, _ string, _ int) (int, http.Header, string) {
			return map[string]int{"send": 403}[what], nil, "{}"
		}, func(w *town) {
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Empty(w.t, w.rows())
			w.pass(hour)
			require.Len(w.t, w.home.got("send", ""), 1)
		}},
		"sent already": {func(what, _ string, _ int) (int, http.Header, string) {
			return map[string]int{"send": 404}[what], nil, "{}"
		}, func(w *town) {
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Empty(w.t, w.rows())
			w.pass(hour)
			require.Len(w.t, w.home.got("send", ""), 1)
		}},
		"come back in 7 seconds": {func(what, _ string, nth int) (int, http.Header, string) {
			if what == "send" && nth == 0 {
				return 429, http.Header{"Retry-After": {"7"}}, "{}"
			}
			return 0, nil, ""
		}, func(w *town) {
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			w.pass(6900 * time.Millisecond)
			require.Len(w.t, w.home.got("send", ""), 1)
			w.pass(200 * time.Millisecond)
			require.Equal(w.t, "sent", w.home.fate("d1"))
		}},
		"come back at a date": {func(what, _ string, nth int) (int, http.Header, string) {
			if what == "send" && nth == 0 {
				return 429, http.Header{"Retry-After": {time.Now().Add(8 * time.Second).UTC().Format(http.TimeFormat)}}, "{}"
			}
			return 0, nil, ""
		}, func(w *town) {
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			w.pass(6900 * time.Millisecond)
			require.Len(w.t, w.home.got("send", ""), 1)
			w.pass(1200 * time.Millisecond)
			require.Equal(w.t, "sent", w.home.fate("d1"))
		}},
		"come back in 2500 ms": {func(what, _ string, nth int) (int, http.Header, string) {
			if what == "restart" && nth == 0 {
				return 429, nil, `{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":2500}`
			}
			return 0, nil, ""
		}, func(w *town) {
			w.joins("ana", "PA_1")
			w.pass(2400 * time.Millisecond)
			require.Len(w.t, w.home.got("restart", ""), 1)
			w.pass(200 * time.Millisecond)
			require.Len(w.t, w.home.got("restart", ""), 2)
		}},
		"errors, until the leave would come by itself": {always(500), func(w *town) {
			w.joins("ana", "PA_1")
			w.pass(50 * time.Second)
			require.Empty(w.t, w.rows())
			n := len(w.home.got("restart", ""))
			require.Greater(w.t, n, 4)
			require.Less(w.t, n, 25)
			w.pass(hour)
			require.Len(w.t, w.home.got("restart", ""), n)
		}},
		"down for ten minutes, connection refused": {func(string, string, int) (int, http.Header, string) {
			if time.Since(began) < 10*time.Minute {
				return -1, nil, ""
			}
			return 0, nil, ""
		}, func(w *town) {
			w.hand("bo", "d2", hour)
			w.joins("bo", "PA_2")
			w.leaves("bo", "PA_2", "SIGNAL_CLOSE")
			w.pass(11*time.Minute + 5*time.Second)
			require.Equal(w.t, "sent", w.home.fate("d2"))
			require.Less(w.t, len(w.home.got("", "")), 100)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, func(w *town) {
				began = time.Now()
				w.home.misbehave(c.answers)
				w.hand("ana", "d1", 45*time.Second)
				c.test(w)
			})
		})
	}
}

// began is when the running case of TestAnswers did.
var began time.Time

// A leave that could not be sent in time must not end the call of a client that
// is back with another one.
func TestBackBeforeItsLeaveIsSent(t *testing.T) {
	away := func(string, string, int) (int, http.Header, string) {
		return http.StatusTooManyRequests, http.Header{"Retry-After": {"600"}}, ""
	}
	gone := func(w *town) {
		w.hand("ana", "d1", hour)
		w.joins("ana", "PA_1")
		w.home.misbehave(away)
		w.leaves("ana", "PA_1", "CLIENT_INITIATED")
		require.Equal(w.t, []string{"sending"}, w.rows())
	}
	for name, test := range map[string]func(w *town){
		"it joins, then hands over": func(w *town) {
			w.set("ana", "PA_2")
			w.hand("ana", "d2", hour)
		},
		"it hands over, then joins": func(w *town) {
			w.hand("ana", "d2", hour)
			w.joins("ana", "PA_2")
		},
		"it hands over by its other identity": func(w *town) {
			w.hand("hash", "d2", hour, func(d *matrixrtc.DelayedLeave) { d.Also = "ana" })
			w.joins("ana", "PA_2")
		},
		"between them is a restart": func(w *town) {
			w.hand("ana", "d2", hour)
			w.stop()
			w.set("ana", "PA_2")
			w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, func(w *town) {
				gone(w)
				test(w)
				w.pass(time.Minute)
				w.home.misbehave(nil)
				w.pass(20 * time.Minute)
				require.Empty(w.t, w.home.got("send", "d1")[1:], "it was tried once, before")
				require.Equal(w.t, "cancelled", w.home.fate("d1"))
				w.pass(2 * hour)
				require.Empty(w.t, w.home.fate("d2"))
			})
		})
	}
}

// Times that were stored seem to be from the future when a clock is set back.
func TestTheClockIsSetBack(t *testing.T) {
	ahead := func(w *town) {
		w.stop()
		later := time.Now().Add(hour).UnixMilli()
		_, err := w.db.Exec(w.t.Context(), "UPDATE delayed_leave SET created_at = $1, restarted_at = $1", later)
		require.NoError(w.t, err)
		w.start()
		w.settle()
	}
	for name, test := range map[string]func(w *town){
		"who is in a call stays": func(w *town) {
			w.hand("ana", "d1", 2*time.Minute)
			w.joins("ana", "PA_1")
			ahead(w)
			w.pass(30 * time.Minute)
			require.Empty(w.t, w.home.fate("d1"))
		},
		"the newest leave counts": func(w *town) {
			w.hand("ana", "d1", 2*hour)
			w.joins("ana", "PA_1")
			ahead(w)
			w.hand("ana", "d2", 2*hour)
			w.pass(10 * time.Minute)
			require.Equal(w.t, "cancelled", w.home.fate("d1"))
			require.Empty(w.t, w.home.fate("d2"))
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d2"))
		},
	} {
		t.Run(name, func(t *testing.T) { inTown(t, test) })
	}
}

// An SFU that dies takes nobody out of a call.
func TestSFUOutage(t *testing.T) {
	crowd := func(w *town) (names []matrixrtc.Identity) {
		for i := range 10 {
			who := matrixrtc.Identity("u" + strconv.Itoa(i))
			names = append(names, who)
			w.hand(who, "d"+string(who), 40*time.Second)
			w.joins(who, "PA_"+string(who))
		}
		return names
	}
	for name, test := range map[string]func(w *town){
		"it is started again, and all but one come back": func(w *town) {
			names := crowd(w)
			w.down(true)
			w.empty()
			w.pass(2 * time.Minute)
			require.Empty(w.t, w.home.got("send", ""))
			require.Len(w.t, w.rows(), 10)
			require.GreaterOrEqual(w.t, len(w.home.got("restart", "du0")), 5, "leaves are put off meanwhile")
			w.down(false)
			w.SFUReady(true)
			for i, who := range names[1:] {
				w.pass(time.Second)
				w.set(who, "again"+strconv.Itoa(i))
				if i%2 == 0 {
					w.report(matrixrtc.ParticipantJoined, who, "again"+strconv.Itoa(i), "")
				}
			}
			w.pass(time.Minute)
			require.Equal(w.t, "sent", w.home.fate("du0"))
			require.Len(w.t, w.home.got("send", ""), 1)
			require.Len(w.t, w.rows(), 9)
		},
		"it stops with a goodbye": func(w *town) {
			for _, who := range crowd(w) {
				w.leaves(who, "PA_"+string(who), "SERVER_SHUTDOWN")
			}
			w.down(true)
			w.pass(3 * time.Minute)
			require.Empty(w.t, w.home.got("send", ""))
			w.down(false)
			w.SFUReady(true)
			w.pass(19 * time.Second)
			require.Empty(w.t, w.home.got("send", ""))
			w.pass(15 * time.Second)
			require.Len(w.t, w.home.got("send", ""), 10)
		},
		"one that somebody else runs, which tells nothing": func(w *town) {
			names := crowd(w)
			w.down(true)
			w.empty()
			w.pass(5 * time.Minute)
			require.Empty(w.t, w.home.got("send", ""))
			w.down(false)
			for i, who := range names {
				w.pass(time.Second)
				w.set(who, "again"+strconv.Itoa(i))
			}
			w.pass(5 * time.Minute)
			require.Empty(w.t, w.home.got("send", ""))
		},
		"it answers that there is nobody, now and then": func(w *town) {
			names := crowd(w)
			n, lied := 0, map[matrixrtc.Identity]bool{}
			w.lie(func(who matrixrtc.Identity) bool {
				n++
				lied[who] = n%7 == 0 && !lied[who] // the first time
				return lied[who]
			})
			w.pass(time.Hour)
			require.Empty(w.t, w.home.got("send", ""))
			for _, who := range names {
				require.Empty(w.t, w.home.fate("d"+string(who)))
			}
		},
		"a report of an end that it cannot confirm": func(w *town) {
			crowd(w)
			w.down(true)
			w.report(matrixrtc.ParticipantLeft, "u1", "PA_u1", "SIGNAL_CLOSE")
			w.pass(5 * time.Minute)
			require.Empty(w.t, w.home.got("send", ""))
		},
	} {
		t.Run(name, func(t *testing.T) { inTown(t, test, func(w *town) { w.token = "token" }) })
	}
}

// A process that ends leaves its leaves to the next.
func TestRestarts(t *testing.T) {
	again := func(w *town, down time.Duration) {
		w.stop()
		w.pass(down)
		w.start()
		w.settle()
	}
	for name, test := range map[string]func(w *town){
		"in the middle of a call": func(w *town) {
			w.hand("ana", "d1", 10*time.Minute)
			w.joins("ana", "PA_1")
			again(w, 4*time.Minute)
			w.pass(hour)
			require.Empty(w.t, w.home.fate("d1"))
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"it left meanwhile": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.stop()
			w.set("ana", "")
			w.start()
			w.pass(6900 * time.Millisecond)
			require.Empty(w.t, w.home.fate("d1"), "it may have been kept out")
			w.pass(200 * time.Millisecond)
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"killed again and again while it is missed": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			for range 8 {
				require.Empty(w.t, w.home.fate("d1"))
				w.pass(3 * time.Second)
				again(w, 0)
			}
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"it is back after one that it was missed by": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "STATE_MISMATCH")
			w.pass(3 * time.Second)
			again(w, 0)
			w.joins("ana", "PA_2")
			again(w, hour/4)
			w.pass(hour)
			require.Empty(w.t, w.home.fate("d1"))
			w.set("ana", "")
			again(w, 0)
			w.pass(6 * time.Second)
			require.Empty(w.t, w.home.fate("d1"), "what was before does not count")
		},
		"its time passed meanwhile, and it left": func(w *town) {
			w.hand("ana", "d1", time.Minute)
			w.joins("ana", "PA_1")
			w.stop()
			w.set("ana", "")
			w.pass(hour)
			w.start()
			w.pass(10 * time.Second)
			require.Len(w.t, w.home.got("send", ""), 1, "it is not there, so this does no harm")
			require.Len(w.t, w.home.got("restart", ""), 1)
			require.Empty(w.t, w.rows())
		},
		"its time passed meanwhile, and it is there": func(w *town) {
			w.hand("ana", "d1", time.Minute)
			w.joins("ana", "PA_1")
			again(w, hour)
			require.Empty(w.t, w.rows())
			require.Empty(w.t, w.home.got("send", ""))
		},
		"while it waited": func(w *town) {
			w.hand("ana", "d1", 10*time.Minute)
			again(w, time.Minute)
			w.joins("ana", "PA_1")
			w.pass(hour)
			require.Empty(w.t, w.home.fate("d1"))
		},
		"while it could not be sent": func(w *town) {
			w.home.misbehave(func(string, string, int) (int, http.Header, string) { return 503, nil, "" })
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.leaves("ana", "PA_1", "CLIENT_INITIATED")
			require.Equal(w.t, []string{"sending"}, w.rows())
			w.stop()
			w.home.misbehave(nil)
			w.start()
			w.settle()
			require.Equal(w.t, "sent", w.home.fate("d1"))
		},
		"between two of one participant": func(w *town) {
			w.hand("ana", "d1", hour)
			w.joins("ana", "PA_1")
			w.home.misbehave(func(string, string, int) (int, http.Header, string) { return 503, nil, "" })
			w.hand("ana", "d2", hour)
			w.stop()
			w.home.misbehave(nil)
			w.start()
			w.pass(time.Minute)
			require.Equal(w.t, "cancelled", w.home.fate("d1"))
			require.Empty(w.t, w.home.fate("d2"))
		},
	} {
		t.Run(name, func(t *testing.T) { inTown(t, test) })
	}
}

package leave_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/focus/leave"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

// replica is a second process over the same database.
func (w *town) replica() (*leave.Leaves, func()) {
	w.t.Helper()
	l, err := leave.New(leave.Options{Store: leave.NewStore(w.db), Homeservers: w, SFU: w, Registerer: prometheus.NewRegistry(),
		Log: zerolog.New(w), Timing: w.timing})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	w.settle()
	return l, func() {
		cancel()
		require.NoError(w.t, <-ended)
	}
}

// onPostgres runs a test where several processes can be.
func onPostgres(t *testing.T, test func(w *town)) {
	t.Helper()
	db, err := migrations.Open(t.Context(), migrationstest.Postgres(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	inBubble(t, db, test, nil)
}

// Of several processes over one database one looks after a leave: the one that
// is told of its participant.
func TestReplicas(t *testing.T) {
	joined := matrixrtc.SFUEvent{Type: matrixrtc.ParticipantJoined, Room: room, Identity: "ana", ParticipantSID: "PA_1"}
	left := matrixrtc.SFUEvent{Type: matrixrtc.ParticipantLeft, Room: room, Identity: "ana", ParticipantSID: "PA_1", Reason: "CLIENT_INITIATED"}
	t.Run("reported to the other one", func(t *testing.T) {
		onPostgres(t, func(w *town) {
			other, stop := w.replica()
			defer stop()
			w.set("ana", "PA_1")
			w.hand("ana", "d1", hour)
			other.SFUEvent(t.Context(), joined)
			w.pass(40 * time.Minute)
			require.LessOrEqual(t, len(w.home.got("restart", "d1")), 3)
			w.set("ana", "")
			other.SFUEvent(t.Context(), left)
			w.settle()
			require.Len(t, w.home.got("send", "d1"), 1)
			w.pass(2 * hour)
			require.Len(t, w.home.got("send", "d1"), 1)
			require.Empty(t, w.rows())
		})
	})
	t.Run("reported to both", func(t *testing.T) {
		onPostgres(t, func(w *town) {
			other, stop := w.replica()
			defer stop()
			w.joins("ana", "PA_1")
			w.hand("ana", "d1", hour)
			w.set("ana", "")
			done := make(chan struct{})
			go func() { other.SFUEvent(t.Context(), left); close(done) }()
			w.SFUEvent(t.Context(), left)
			<-done
			w.pass(10 * time.Minute)
			require.Equal(t, "sent", w.home.fate("d1"))
			require.Empty(t, w.rows())
		})
	})
	t.Run("replaced at the other one", func(t *testing.T) {
		onPostgres(t, func(w *town) {
			other, stop := w.replica()
			defer stop()
			w.set("ana", "PA_1")
			w.hand("ana", "d1", hour)
			w.home.schedule("d2", hour)
			require.NoError(t, other.Delegate(t.Context(), matrixrtc.DelayedLeave{Room: room, Identity: "ana",
				User: "@ana:own.example", Server: server, DelayID: "d2", Delay: hour}))
			w.settle()
			require.Equal(t, "cancelled", w.home.fate("d1"))
			w.pass(2 * hour)
			require.Empty(t, w.home.fate("d2"))
		})
	})
	t.Run("one dies", func(t *testing.T) {
		onPostgres(t, func(w *town) {
			w.set("ana", "PA_1")
			w.hand("ana", "d1", 10*time.Minute)
			w.stop() // it let go, as one that dies does once its lease is over
			_, err := w.db.Exec(t.Context(), "UPDATE delayed_leave SET lease_until = $1", time.Now().Add(20*time.Second).UnixMilli())
			require.NoError(t, err)
			_, stop := w.replica()
			defer stop()
			defer w.start()
			w.pass(10 * time.Second)
			require.Len(t, w.home.got("restart", ""), 1)
			w.set("ana", "")
			w.pass(30 * time.Second)
			require.Equal(t, "sent", w.home.fate("d1"))
		})
	})
}

// What was taken over while the answer of the database was lost is looked after
// all the same: nobody else does.
func TestTakenOverWithoutAnAnswer(t *testing.T) {
	db, err := migrations.Open(t.Context(), migrationstest.Postgres(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	job := func(id string) leave.Job {
		return leave.Job{ID: id, State: leave.Connected, DelayedLeave: matrixrtc.DelayedLeave{Room: room, Identity: "ana",
			Server: server, DelayID: matrixrtc.DelayID(id), Delay: hour}, CreatedAt: time.Now(), RestartedAt: time.Now()}
	}
	ids := func(jobs []leave.Job, err error) (ids []string) {
		require.NoError(t, err)
		for _, j := range jobs {
			ids = append(ids, j.ID)
		}
		return ids
	}
	ours, other := leave.NewStore(db).(leave.Shared), leave.NewStore(db)
	require.NoError(t, ours.Add(t.Context(), job("1")))
	require.Empty(t, ids(ours.Renew(t.Context())), "what it has it does not take over")
	for name, lost := range map[string]func(context.Context) error{
		"2": func(ctx context.Context) error { _, err := ours.Take(ctx, room, "ana"); return err },
		"3": func(ctx context.Context) error { _, err := ours.Load(ctx); return err },
		"4": func(ctx context.Context) error { _, err := ours.Renew(ctx); return err },
		"5": func(ctx context.Context) error { return ours.Add(ctx, job("not stored")) },
	} {
		require.NoError(t, other.Add(t.Context(), job(name)))
		// As if it had been done, and the answer had not come.
		_, err := db.Exec(t.Context(), "UPDATE delayed_leave SET owner = (SELECT owner FROM delayed_leave WHERE job_id = '1')")
		require.NoError(t, err)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		require.Error(t, lost(gone))
		require.Contains(t, ids(ours.Renew(t.Context())), name)
		require.Empty(t, ids(ours.Renew(t.Context())), "once")
	}
}

// Reports that are lost, doubled and shuffled come to the same end as the
// truth, once the looks have caught up.
func TestUnreliableReports(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inMemory(t, func(w *town) { rage(w, rand.New(rand.NewPCG(seed, 1))) }, func(w *town) { w.token = "token" })
		})
	}
}

// storm is ten minutes of people who connect again and leave, and of reports of
// it that are lost, doubled and late.
type storm struct {
	*town
	r     *rand.Rand
	queue []delivery
	// sids count the connections of each person; gone are those who left.
	sids map[matrixrtc.Identity]int
	gone map[matrixrtc.Identity]bool
}

type delivery struct {
	at time.Time
	e  matrixrtc.SFUEvent
}

func (s *storm) tell(kind matrixrtc.SFUEventType, who matrixrtc.Identity, reason string) {
	e := matrixrtc.SFUEvent{Type: kind, Room: room, At: time.Now().Truncate(time.Second), Identity: who, ParticipantSID: s.sid(who), Reason: reason}
	for range 1 + s.r.IntN(2) {
		if s.r.Float64() >= 0.3 {
			s.queue = append(s.queue, delivery{time.Now().Add(time.Duration(s.r.IntN(4000)) * time.Millisecond), e})
		}
	}
}

func (s *storm) sid(who matrixrtc.Identity) string { return fmt.Sprintf("PA_%s_%d", who, s.sids[who]) }

func (s *storm) connect(who matrixrtc.Identity) {
	if s.sids[who] > 0 {
		s.tell(matrixrtc.ParticipantLeft, who, "DUPLICATE_IDENTITY")
	}
	s.sids[who]++
	s.set(who, s.sid(who))
	s.tell(matrixrtc.ParticipantJoined, who, "")
}

// deliver reports what is due.
func (s *storm) deliver() {
	var later []delivery
	for _, d := range s.queue {
		if time.Now().Before(d.at) {
			later = append(later, d)
		} else {
			s.SFUEvent(s.t.Context(), d.e)
		}
	}
	s.queue = later
	synctest.Wait()
}

func rage(w *town, r *rand.Rand) {
	const people = 30
	s := &storm{town: w, r: r, sids: map[matrixrtc.Identity]int{}, gone: map[matrixrtc.Identity]bool{}}
	for i := range people {
		who := matrixrtc.Identity(fmt.Sprintf("u%d", i))
		w.hand(who, "d"+string(who), hour)
		s.connect(who)
	}
	for range 600 {
		who := matrixrtc.Identity(fmt.Sprintf("u%d", r.IntN(people)))
		switch {
		case s.gone[who]:
		case r.Float64() < 0.03:
			s.gone[who] = true
			w.set(who, "")
			s.tell(matrixrtc.ParticipantLeft, who, []string{"CLIENT_INITIATED", "SIGNAL_CLOSE", "CONNECTION_TIMEOUT"}[r.IntN(3)])
		case r.Float64() < 0.05:
			s.connect(who)
		}
		w.pass(time.Second)
		s.deliver()
		for other := range s.sids {
			if !s.gone[other] {
				require.Empty(w.t, w.home.fate("d"+string(other)), "%s is there", other)
			}
		}
	}
	w.pass(2 * time.Minute) // one sweep
	require.NotEmpty(w.t, s.gone)
	for who := range s.sids {
		want := ""
		if s.gone[who] {
			want = "sent"
		}
		require.Equal(w.t, want, w.home.fate("d"+string(who)), who)
		require.LessOrEqual(w.t, len(w.home.got("send", "d"+string(who))), 1)
	}
}

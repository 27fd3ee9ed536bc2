package federation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/federation"
	"passerelle/federation/federationtest"
	"passerelle/focus/matrixrtc"
)

// p99 is the 99th percentile of how long lookups at a homeserver take.
func p99(t *testing.T, openID *federation.OpenID, h *federationtest.Homeserver) time.Duration {
	t.Helper()
	took := make([]time.Duration, 300)
	for i := range took {
		began := time.Now()
		_, err := openID.Verify(t.Context(), token(h, h.Issue("ana")))
		require.NoError(t, err)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

// A slow server must not keep others waiting.
func TestASlowServerDelaysNobodyElse(t *testing.T) {
	slow := federationtest.New(t, federationtest.GoodCertificate)
	slow.Misbehave(federationtest.Hang)
	good := federationtest.New(t, federationtest.GoodCertificate)
	openID := newOpenID(t, slow, func(o *federation.Options) {
		o.Config.CAFiles = []string{slow.CAFile(), good.CAFile()}
		o.Config.Timeout = 10 * time.Second
	})
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for range 100 {
		asking.Go(func() { _, _ = openID.Verify(ctx, token(slow, "x")) })
	}
	require.Eventually(t, func() bool { return slow.Requests() == 32 }, 5*time.Second, time.Millisecond)
	t.Logf("p99 beside a slow server: %s", p99(t, openID, good))
	require.Equal(t, 32, slow.Requests(), "as many at once, and no more")
	require.Equal(t, 1, good.Connections())
}

func TestAServerThatKeepsFailingIsLeftAlone(t *testing.T) {
	for name, misbehave := range map[string]federationtest.Misbehaviour{
		"status 500": federationtest.Status(500), "closed": federationtest.Close, "not HTTP": federationtest.Raw("x"),
	} {
		t.Run(name, func(t *testing.T) {
			h := federationtest.New(t, federationtest.GoodCertificate)
			h.Misbehave(misbehave)
			openID := newOpenID(t, h)
			for range 50 {
				_, err := openID.Verify(t.Context(), token(h, "x"))
				require.ErrorIs(t, err, federation.ErrUnreachable)
			}
			require.Equal(t, 5, h.Requests())
		})
	}
}

// Nothing that a stranger can send may make an honest server be left alone.
func TestStrangersCannotSilenceAServer(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	h.Misbehave(federationtest.Status(500)) // what some homeservers do with odd tokens
	openID := newOpenID(t, h)
	for _, odd := range []string{"", " ", "a b", "a\x00b", "a\nb", "é", "\xff", strings.Repeat("x", 2049)} {
		for range 10 {
			_, err := openID.Verify(t.Context(), token(h, odd))
			require.ErrorIs(t, err, federation.ErrRejected, "%q", odd)
		}
	}
	require.Zero(t, h.Requests())
	for _, status := range []int{400, 401, 403, 404, 414, 429, 431} {
		h.Misbehave(federationtest.Status(status))
		for range 10 {
			_, err := openID.Verify(t.Context(), token(h, "&=%#?/\\\"<>"))
			require.Error(t, err)
		}
	}
	h.Misbehave(federationtest.Hang)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		time.AfterFunc(time.Millisecond, cancel)
		_, err := openID.Verify(ctx, token(h, "x"))
		require.ErrorIs(t, err, context.Canceled)
	}
	h.Misbehave(nil)
	_, err := openID.Verify(t.Context(), token(h, h.Issue("ana")))
	require.NoError(t, err)
}

// Who had to queue for most of the time says nothing about the server either.
func TestAQueueSilencesNobody(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	h.Misbehave(federationtest.Hang)
	// As many handshakes at once may take a busy machine a second.
	const timeout = 3 * timeout
	openID := newOpenID(t, h, func(o *federation.Options) { o.Config.Timeout = timeout })
	busy, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for range 32 {
		asking.Go(func() { _, _ = openID.Verify(busy, token(h, "x")) })
	}
	require.Eventually(t, func() bool { return h.Requests() == 32 }, timeout, time.Millisecond)
	for range 10 {
		asking.Go(func() {
			if _, err := openID.Verify(t.Context(), token(h, "x")); !errors.Is(err, federation.ErrUnreachable) {
				t.Error(err)
			}
		})
	}
	time.AfterFunc(3*timeout/4, cancel)
	asking.Wait()
	h.Misbehave(nil)
	_, err := openID.Verify(t.Context(), token(h, h.Issue("ana")))
	require.NoError(t, err)
}

// A question goes out once, also when the kept connection on which it went
// breaks: net/http would ask again by itself.
func TestABrokenKeptConnectionIsNoSecondQuestion(t *testing.T) {
	for name, misbehave := range map[string]federationtest.Misbehaviour{
		"closed": federationtest.Close, "reset": federationtest.Reset,
	} {
		t.Run(name, func(t *testing.T) {
			h := federationtest.New(t, federationtest.GoodCertificate)
			openID := newOpenID(t, h)
			_, err := openID.Verify(t.Context(), token(h, h.Issue("ana")))
			require.NoError(t, err)
			h.Misbehave(misbehave)
			_, err = openID.Verify(t.Context(), token(h, h.Issue("ana")))
			require.ErrorIs(t, err, federation.ErrUnreachable)
			require.Equal(t, 2, h.Requests())
			h.Misbehave(nil)
			_, err = openID.Verify(t.Context(), token(h, h.Issue("ana")))
			require.NoError(t, err)
			require.Equal(t, 2, h.Connections())
		})
	}
}

func TestAServerThatNeverSpeaks(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	silent := federationtest.Listen(t, "127.0.0.1:0")
	openID := newOpenID(t, h)
	began := time.Now()
	_, err := openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: "x", MatrixServerName: silent.Name()})
	require.ErrorIs(t, err, federation.ErrUnreachable)
	require.ErrorContains(t, err, "in time")
	require.Less(t, time.Since(began), 2*timeout)
	require.Equal(t, 1, silent.Connections())
}

// What is logged and counted names no user and holds no token; what is counted
// names no server.
func TestWhatIsToldOfIt(t *testing.T) {
	h := federationtest.New(t, federationtest.GoodCertificate)
	registry := prometheus.NewRegistry()
	var log strings.Builder
	openID := newOpenID(t, h, func(o *federation.Options) {
		o.Registerer, o.Log = registry, zerolog.New(&log).Level(zerolog.TraceLevel)
	})
	ask := func(misbehave federationtest.Misbehaviour, server string) {
		h.Misbehave(misbehave)
		_, _ = openID.Verify(t.Context(), matrixrtc.OpenIDToken{AccessToken: h.Issue("ana") + "SECRET", MatrixServerName: server})
	}
	ask(federationtest.Body(`{"sub":"@ana:{name}"}`), h.Name())
	ask(nil, h.Name())
	ask(nil, "unnamed.example")
	ask(federationtest.Body(`{"sub":"@ana:victim.example"}`), h.Name())
	for range 7 {
		ask(federationtest.Raw("{token}"), h.Name())
	}
	require.Contains(t, log.String(), `"breaker":"open"`)
	require.Contains(t, log.String(), `"server_name":"`+h.Name()+`"`)
	require.Contains(t, log.String(), "not its own")
	require.NotContains(t, log.String(), "SECRET")
	require.NotContains(t, log.String(), "@ana")

	families, err := registry.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			require.LessOrEqual(t, len(m.GetLabel()), 1, family.GetName())
			label := ""
			for _, l := range m.GetLabel() {
				label = l.GetValue()
			}
			switch {
			case m.Counter != nil:
				got[label] = m.GetCounter().GetValue()
			case m.Gauge != nil:
				got["servers "+label] = m.GetGauge().GetValue()
			case m.Histogram != nil:
				got["timed"] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	require.Equal(t, map[string]float64{
		"verified": 1, "rejected": 1, "not_allowed": 1, "foreign_subject": 1, "unreachable": 5, "paused": 2, "abandoned": 0,
		"servers open": 1, "servers closed": 0, "servers half_open": 0, "timed": 8,
	}, got)
}

package hostile

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"passerelle/federation/federationtest"
)

const (
	// round is one measurement: long enough for questions that hang to fill
	// what they may.
	round = 6 * time.Second
	// attackRate is how many requests a second an attack makes.
	attackRate = 200
)

// attack runs until ctx is done and takes down what it was told.
type attack func(ctx context.Context, w *world, told *tally)

// asking is an attack with token requests, each from one of some addresses.
func asking(next func(w *world, n int) string) attack {
	return func(ctx context.Context, w *world, told *tally) {
		w.steady(ctx, w.attacked, attackRate, told, func(n int) request {
			return request{from: fmt.Sprintf("198.51.100.%d", n%50), body: next(w, n)}
		})
	}
}

// toEvil asks with tokens of the hostile homeserver.
var toEvil = asking(func(w *world, n int) string {
	return body(fmt.Sprintf("!e%d:evil", n), w.evil.Issue("eve"), w.evil.Name())
})

func BenchmarkHomeserver(b *testing.B) {
	for _, c := range []struct {
		name        string
		certificate federationtest.Certificate
		misbehave   federationtest.Misbehaviour
	}{
		{"foreign_sub", federationtest.GoodCertificate, federationtest.Body(`{"sub":"@ana:victim.example"}`)},
		{"no_sub", federationtest.GoodCertificate, federationtest.Body(`{}`)},
		{"huge_sub", federationtest.GoodCertificate, federationtest.Body(`{"sub":"@` + strings.Repeat("a", 60<<10) + `:{name}"}`)},
		{"endless_answer", federationtest.GoodCertificate, federationtest.Endless},
		{"drip", federationtest.GoodCertificate, federationtest.Drip},
		{"drip_headers", federationtest.GoodCertificate, federationtest.DripHeaders},
		{"hang", federationtest.GoodCertificate, federationtest.Hang},
		{"endless_redirect", federationtest.GoodCertificate, federationtest.Redirect("")},
		{"redirect_to_loopback", federationtest.GoodCertificate, federationtest.Redirect("https://127.0.0.1:1/")},
		{"wrong_certificate", federationtest.WrongName, nil},
		{"errors", federationtest.GoodCertificate, federationtest.Status(500)},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, c.certificate)
			w.evil.Misbehave(c.misbehave)
			compare(b, w, toEvil)
		})
	}
	b.Run("never_speaks", func(b *testing.B) {
		compare(b, newWorld(b, federationtest.GoodCertificate), asking(func(w *world, n int) string {
			return body(fmt.Sprintf("!e%d:evil", n), "x", w.silent.Name())
		}))
	})
	b.Run("private_address", func(b *testing.B) {
		inside := []string{"127.0.0.2", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[fc00::1]", "0.0.0.0", "2130706434", "0x7f000002", "0177.0.0.2"}
		compare(b, newWorld(b, federationtest.GoodCertificate), asking(func(w *world, n int) string {
			return body("!e:evil", "x", inside[n%len(inside)]+":80")
		}))
	})
	b.Run("anothers_token", func(b *testing.B) {
		compare(b, newWorld(b, federationtest.GoodCertificate), asking(func(w *world, n int) string {
			return body("!e:evil", w.evil.Issue("eve"), w.healthy.Name())
		}))
	})
	b.Run("replay", func(b *testing.B) {
		w := newWorld(b, federationtest.GoodCertificate)
		stolen := w.healthy.Issue("victim")
		if status := w.post(b.Context(), w.attacked, request{"192.0.2.1", body("!victim:healthy", stolen, w.healthy.Name())}); status != http.StatusOK {
			b.Fatal(status)
		}
		compare(b, w, asking(func(w *world, n int) string {
			return body(fmt.Sprintf("!e%d:evil", n), stolen, w.healthy.Name())
		}))
	})
}

func BenchmarkClient(b *testing.B) {
	b.Run("none", func(b *testing.B) {
		compare(b, newWorld(b, federationtest.GoodCertificate), func(ctx context.Context, _ *world, _ *tally) { <-ctx.Done() })
	})
	b.Run("endless_rooms", func(b *testing.B) {
		// A user of a good homeserver, who gets what the limits allow.
		compare(b, newWorld(b, federationtest.GoodCertificate), toEvil)
	})
	b.Run("deep_JSON", func(b *testing.B) {
		deep := strings.Repeat("[", 32_000)
		compare(b, newWorld(b, federationtest.GoodCertificate), asking(func(*world, int) string { return deep }))
	})
	b.Run("slowloris", func(b *testing.B) {
		compare(b, newWorld(b, federationtest.GoodCertificate), slowloris)
	})
	b.Run("100_MB", func(b *testing.B) {
		compare(b, newWorld(b, federationtest.GoodCertificate), hugeBodies)
	})
}

// slowloris keeps a thousand connections open that never end their request,
// and opens another for each that is closed.
func slowloris(ctx context.Context, w *world, told *tally) {
	var holding sync.WaitGroup
	defer holding.Wait()
	for range 1000 {
		holding.Go(func() {
			for ctx.Err() == nil {
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(w.attacked.address, "http://"))
				if err != nil {
					return
				}
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				_, _ = io.WriteString(conn, "POST /sfu/get HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n{")
				began := time.Now()
				_, _ = io.Copy(io.Discard, conn)
				stop()
				_ = conn.Close()
				told.add(0, time.Since(began))
			}
		})
	}
}

// hugeBodies sends bodies of 100 MB, eight at a time.
func hugeBodies(ctx context.Context, w *world, told *tally) {
	var sending sync.WaitGroup
	defer sending.Wait()
	for range 8 {
		sending.Go(func() {
			for ctx.Err() == nil {
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.attacked.address+"/sfu/get", io.LimitReader(spaces{}, 100<<20))
				if err != nil {
					return
				}
				began, status := time.Now(), 0
				if answer, err := w.client.Do(r); err == nil {
					status = answer.StatusCode
					_ = answer.Body.Close()
				}
				told.add(status, time.Since(began))
			}
		})
	}
}

type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// compare measures the users of the healthy homeserver without and with the
// attack, in turn.
func compare(b *testing.B, w *world, a attack) {
	b.Helper()
	w.measure(b, time.Second, newTally(), newTally()) // warm
	quietAttacked, quietPeaceful, attacked, peaceful, told := newTally(), newTally(), newTally(), newTally(), newTally()
	before, used := w.attacked.rss(b), 0.0
	for b.Loop() {
		w.measure(b, round/2, quietAttacked, quietPeaceful)
		ctx, cancel := context.WithCancel(b.Context())
		began, idle := w.attacked.cpu(b), w.peaceful.cpu(b)
		var attacking sync.WaitGroup
		attacking.Go(func() { a(ctx, w, told) })
		w.measure(b, round, attacked, peaceful)
		cancel()
		attacking.Wait()
		used += w.attacked.cpu(b) - began - (w.peaceful.cpu(b) - idle)
	}
	b.ReportMetric(0, "ns/op") // says nothing here
	b.ReportMetric(peaceful.p99(), "p99-ms-peace")
	b.ReportMetric(attacked.p99(), "p99-ms-attacked")
	b.ReportMetric(attacked.p99()/peaceful.p99(), "ratio")
	b.ReportMetric(quietAttacked.p99()/quietPeaceful.p99(), "ratio-without")
	b.ReportMetric(used/float64(max(1, len(told.took))), "cpu-ms/attack")
	b.ReportMetric(float64(told.statuses[http.StatusOK]), "tokens-for-it")
	b.ReportMetric(float64(told.mostly()), "mostly-told")
	b.ReportMetric(w.attacked.rss(b)-before, "MiB-more")
}

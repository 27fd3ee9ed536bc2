package hostile

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"passerelle/federation/federationtest"
)

// binary is built once for all benchmarks.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "passerelle-hostile-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "passerelle")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var build = sync.OnceValue(func() error {
	command := exec.Command("go", "build", "-buildvcs=false", "-o", binary, ".")
	command.Dir = "../.."
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
})

// process is one Passerelle.
type process struct {
	command *exec.Cmd
	address string
}

// world is Passerelle as two processes, one of which is attacked, between a
// healthy homeserver and a hostile one.
type world struct {
	attacked, peaceful process
	healthy, evil      *federationtest.Homeserver
	silent             *federationtest.Silent
	sfu                *httptest.Server
	client             *http.Client
}

func newWorld(b *testing.B, certificate federationtest.Certificate) *world {
	b.Helper()
	if err := build(); err != nil {
		b.Fatal(err)
	}
	w := &world{
		sfu: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/protobuf")
		})),
		healthy: federationtest.New(b, federationtest.GoodCertificate),
		evil:    federationtest.New(b, certificate),
		silent:  federationtest.Listen(b, "127.0.0.1:0"),
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			MaxIdleConnsPerHost: 4096, ExpectContinueTimeout: time.Second}},
	}
	b.Cleanup(w.sfu.Close)
	b.Cleanup(w.client.CloseIdleConnections)
	w.attacked, w.peaceful = w.start(b), w.start(b)
	return w
}

// start returns when the process takes connections.
func (w *world) start(b *testing.B) process {
	b.Helper()
	dir := b.TempDir()
	public, private := freePort(b), freePort(b)
	config := fmt.Sprintf(`
server: {listen: %q, private_listen: %q, public_url: "http://%[1]s", data_dir: %[3]q}
log: {level: error, format: json}
database: {path: %[4]q}
livekit: {mode: external, url: %[5]q, key: APIbench, secret: 6f1c0e8b54d24b7f9a31c2d07be89a45}
focus: {membership: unverified}
federation:
  allow_networks: ["127.0.0.1/32"]
  ca_files: [%[6]q, %[7]q]
  rules: [{server: "*", access: create}]
`, public, private, dir, filepath.Join(dir, "p.db"), w.sfu.URL, w.healthy.CAFile(), w.evil.CAFile())
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	var said bytes.Buffer
	p := process{exec.Command(binary, "-config", file), "http://" + public}
	p.command.Stderr = &said
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = p.command.Process.Signal(syscall.SIGTERM)
		_ = p.command.Wait()
	})
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", public)
		if err == nil {
			_ = conn.Close()
			return p
		}
		select {
		case <-ctx.Done():
			b.Fatal(err, said.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// rss is the memory that the process occupies, in MiB.
func (p process) rss(b *testing.B) float64 {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.command.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20)
}

// clockTicks is how many of the kernel's ticks make a second, on every Linux
// that Go runs on.
const clockTicks = 100

// cpu is the processor time that the process has used, in milliseconds.
func (p process) cpu(b *testing.B) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	// The 12th and 13th field after the name are utime and stime (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) * 1000 / clockTicks
}

func freePort(b *testing.B) string {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

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

// world is Passerelle as a process, between a healthy homeserver and a hostile
// one.
type world struct {
	command       *exec.Cmd
	address       string
	healthy, evil *federationtest.Homeserver
	silent        *federationtest.Silent
	client        *http.Client
}

func newWorld(b *testing.B, certificate federationtest.Certificate) *world {
	b.Helper()
	if err := build(); err != nil {
		b.Fatal(err)
	}
	sfu := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/protobuf")
	}))
	b.Cleanup(sfu.Close)
	w := &world{
		healthy: federationtest.New(b, federationtest.GoodCertificate),
		evil:    federationtest.New(b, certificate),
		silent:  federationtest.Listen(b, "127.0.0.1:0"),
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			MaxIdleConnsPerHost: 4096, ExpectContinueTimeout: time.Second}},
	}
	b.Cleanup(w.client.CloseIdleConnections)
	dir := b.TempDir()
	public, private := freePort(b), freePort(b)
	config := fmt.Sprintf(`
server: {listen: %q, private_listen: %q, public_url: "http://%[1]s", data_dir: %[3]q}
log: {level: error, format: json}
database: {path: %[4]q}
livekit: {mode: external, url: %[5]q, key: APIbench, secret: 6f1c0e8b54d24b7f9a31c2d07be89a45}
federation:
  allow_networks: ["127.0.0.1/32"]
  ca_files: [%[6]q, %[7]q]
  rules: [{server: "*", access: create}]
`, public, private, dir, filepath.Join(dir, "p.db"), sfu.URL, w.healthy.CAFile(), w.evil.CAFile())
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	w.address = "http://" + public
	w.start(b, file, public)
	return w
}

// start returns when the process takes connections.
func (w *world) start(b *testing.B, file, public string) {
	b.Helper()
	var said bytes.Buffer
	w.command = exec.Command(binary, "-config", file)
	w.command.Stderr = &said
	w.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := w.command.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = w.command.Process.Signal(syscall.SIGTERM)
		_ = w.command.Wait()
	})
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", public)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			b.Fatal(err, said.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// rss is the memory that the process occupies, in MiB.
func (w *world) rss(b *testing.B) float64 {
	b.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", w.command.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20)
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

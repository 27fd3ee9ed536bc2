package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a service under test.
type process struct {
	command *exec.Cmd
	pid     int
	address string
	// proxied is where the homeserver hands over what it is asked for.
	proxied string
	said    bytes.Buffer
}

// at is where the route is asked for.
func (p *process) at(route string) string {
	if route == proxiedRoute {
		return p.proxied
	}
	return p.address
}

// startPasserelle starts the real binary, with the SFU that sends everything
// back.
func startPasserelle(ctx context.Context, binary, dir string, world *stubs, environment ...string) (*process, error) {
	return startWith(ctx, binary, dir, world.home, world.livekit(), environment...)
}

// livekit is the section of the configuration for the SFU that sends everything
// back.
func (s *stubs) livekit() string {
	return fmt.Sprintf("{mode: external, url: %q, key: APIbench, secret: 6f1c0e8b54d24b7f9a31c2d07be89a45}", s.sfu.address)
}

// startWith is startPasserelle with another livekit section.
func startWith(ctx context.Context, binary, dir string, h home, livekit string, environment ...string) (*process, error) {
	public, private, err := freePorts()
	if err != nil {
		return nil, err
	}
	proxied, _, err := freePorts()
	if err != nil {
		return nil, err
	}
	return startAt(ctx, binary, dir, h, livekit, public, private, proxied, environment...)
}

// What Passerelle and its homeserver share.
const (
	asToken = "as_token-that-is-of-no-use-anywhere-else"
	hsToken = "hs_token-that-is-of-no-use-anywhere-else"
)

// startAt is startWith at those addresses.
func startAt(ctx context.Context, binary, dir string, h home, livekit, public, private, proxied string, environment ...string) (*process, error) {
	file := filepath.Join(dir, "config.yaml")
	config := fmt.Sprintf(`
server: {listen: %q, private_listen: %q, public_url: "http://%[1]s", data_dir: %[3]q}
log: {level: error, format: json}
database: {path: %[4]q}
livekit: %[5]s
focus: {limits: {address: 0, server: 0, user: 0}}
homeserver: {server_name: %[7]q, url: %[8]q, listen: %[9]q, as_token: %[10]q, hs_token: %[11]q}
federation:
  allow_networks: ["127.0.0.0/8"]
  ca_files: [%[6]q]
  rules: [{server: %[7]q, access: create}]
`, public, private, filepath.Join(dir, "data"), filepath.Join(dir, "bench.db"), livekit, h.caFile, h.name, h.url,
		proxied, asToken, hsToken)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	command := exec.Command(binary, "-config", file)
	command.Env = append(os.Environ(), environment...)
	p, err := start(ctx, command, public)
	if err == nil {
		p.proxied = "http://" + proxied
	}
	return p, err
}

// inherited is the number of the file that a process finds its listener in.
const inherited = 3

// startEcho starts the SFU that sends everything back.
func startEcho(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	command := exec.Command(self, "echo")
	command.ExtraFiles = []*os.File{file}
	return start(ctx, command, listener.Addr().String())
}

// bareSettings is what the bare service is told on its standard input.
type bareSettings struct {
	Listen, CAFile, SFU, ClientAPI string
}

func startBare(ctx context.Context, world *stubs) (*process, error) {
	public, _, err := freePorts()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	settings, err := json.Marshal(bareSettings{public, world.caFile, world.sfu.address, world.url})
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "bare")
	command.Stdin = bytes.NewReader(settings)
	p, err := start(ctx, command, public)
	if err == nil {
		p.proxied = p.address
	}
	return p, err
}

// start starts the service and returns when it takes connections.
func start(ctx context.Context, command *exec.Cmd, address string) (*process, error) {
	p := &process{command: command, address: "http://" + address}
	command.Stderr = &p.said
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := command.Start(); err != nil {
		return nil, err
	}
	p.pid = command.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return p, conn.Close()
		}
		select {
		case <-ctx.Done():
			p.stop()
			return nil, errors.Join(err, errors.New(p.said.String()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Wait()
}

// child is the process that answers at that control socket with its number. It
// is not ours to stop.
func child(socket, address string) (*process, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var hello struct{ PID int }
	if err := json.NewDecoder(conn).Decode(&hello); err != nil {
		return nil, err
	}
	return &process{pid: hello.PID, address: address}, nil
}

// clockTicks is how many of the kernel's ticks make a second, on every Linux
// that Go runs on.
const clockTicks = 100

// cpu is the processor time that the process has used, in user and kernel.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, err
	}
	// The name may hold anything; the fields follow its closing bracket, and
	// the 12th and 13th of those are utime and stime (proc(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

// rss is the memory that the process occupies, in MiB.
func (p *process) rss() (float64, error) {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	return float64(pages) * float64(os.Getpagesize()) / (1 << 20), err
}

func freePorts() (public, private string, err error) {
	for _, into := range []*string{&public, &private} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		defer l.Close()
		*into = l.Addr().String()
	}
	return public, private, nil
}

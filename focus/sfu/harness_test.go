package sfu_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"passerelle/config"
	"passerelle/focus/sfu"
)

// patience is what a loaded machine may need for anything here.
const patience = time.Minute

// record is a log that can be read and waited for.
type record struct {
	mu      sync.Mutex
	entries []map[string]any
	more    chan struct{} // closed at the next entry
}

func newRecord() *record { return &record{more: make(chan struct{})} }

func (r *record) Write(line []byte) (int, error) {
	var entry map[string]any
	if err := json.Unmarshal(line, &entry); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, entry)
	close(r.more)
	r.more = make(chan struct{})
	return len(line), nil
}

// all returns the entries with a message.
func (r *record) all(message string) (found []map[string]any, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		if e["message"] == message {
			found = append(found, e)
		}
	}
	return found, r.more
}

// await returns the nth entry with a message, from 1.
func (r *record) await(t *testing.T, message string, nth int) map[string]any {
	t.Helper()
	timeout := time.After(patience)
	for {
		found, more := r.all(message)
		if len(found) >= nth {
			return found[nth-1]
		}
		select {
		case <-more:
		case <-timeout:
			r.mu.Lock()
			defer r.mu.Unlock()
			require.FailNow(t, "not logged: "+message, "%v", r.entries)
		}
	}
}

// pid is the process that became ready as the nth.
func (r *record) pid(t *testing.T, nth int) int {
	t.Helper()
	return int(r.await(t, "The SFU is ready", nth)["pid"].(float64))
}

// house is one Passerelle's SFU.
type house struct {
	*sfu.Supervisor
	log      *record
	registry *prometheus.Registry
	folder   string
	fresh    chan bool // what OnReady was told
	ended    chan error
	stop     context.CancelFunc
}

func embedded() config.Embedded {
	return config.Embedded{NodeIP: "127.0.0.1", Loopback: true, OrphanTimeout: time.Minute}
}

// prepare makes a Supervisor whose children behave as mode says.
func prepare(t *testing.T, mode string, change func(*sfu.Options)) *house {
	t.Helper()
	h := &house{log: newRecord(), registry: prometheus.NewRegistry(), fresh: make(chan bool, 16), ended: make(chan error, 1)}
	o := sfu.Options{
		Config: embedded(), DataDir: t.TempDir(), Args: []string{"child", mode},
		Log: zerolog.New(h.log), Registerer: h.registry,
		OnReady: func(_ context.Context, fresh bool) error { h.fresh <- fresh; return nil },
	}
	if change != nil {
		change(&o)
	}
	h.folder = o.DataDir
	var err error
	h.Supervisor, err = sfu.New(o)
	require.NoError(t, err)
	return h
}

// open runs it until the test's end.
func open(t *testing.T, mode string, change func(*sfu.Options)) *house {
	t.Helper()
	h := prepare(t, mode, change)
	ctx, cancel := context.WithCancel(t.Context())
	h.stop = cancel
	go func() { h.ended <- h.Run(ctx); close(h.ended) }()
	t.Cleanup(func() { h.close(t) })
	return h
}

func (h *house) close(t *testing.T) {
	t.Helper()
	h.stop()
	select {
	case err := <-h.ended:
		require.NoError(t, err)
	case <-time.After(patience):
		require.FailNow(t, "Run does not return")
	}
}

func (h *house) dir() string { return h.folder }

// in makes a Supervisor the successor of a lost parent.
func in(p parentOptions) func(*sfu.Options) {
	return func(o *sfu.Options) { o.DataDir, o.Config = p.Dir, p.Config }
}

// fixedPorts is a configuration that means the same to two Supervisors.
func fixedPorts(t *testing.T) config.Embedded {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	c := embedded()
	c.Port = listener.Addr().(*net.TCPAddr).Port
	c.UDPPort = c.Port
	return c
}

// startStranger has another process hold the control socket.
func startStranger(t *testing.T, dir string) held {
	t.Helper()
	settings, err := json.Marshal(sfu.Settings{
		Dir: dir, Port: 1, UDPPort: 1, NodeIP: "127.0.0.1", OrphanTimeout: time.Minute, Key: "k", Secret: "s",
	})
	require.NoError(t, err)
	command := exec.Command("/proc/self/exe", "child", "speaks another language")
	command.Stdin = bytes.NewReader(settings)
	command.Stderr = os.Stderr
	require.NoError(t, command.Start())
	stranger := hold(t, command.Process.Pid)
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, "sfu.sock"))
		return err == nil
	}, patience, time.Millisecond)
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	return stranger
}

func (h *house) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, h.WaitReady(ctx))
}

// metric is the value of a metric, with the value of its label if it has one.
func (h *house) metric(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := h.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	require.FailNow(t, "no metric "+name)
	return 0
}

// held is a process that can be waited for although it is no child of ours.
type held struct{ fd int }

func hold(t *testing.T, pid int) held {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		_ = unix.Close(fd)
	})
	return held{fd}
}

func (p held) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0))
}

// gone waits for the end of the process.
func (p held) gone(t *testing.T, within time.Duration) {
	t.Helper()
	require.True(t, p.ends(t, within), "the process lives")
}

func (p held) ends(t *testing.T, within time.Duration) bool {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline)).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		require.NoError(t, err)
		return n > 0
	}
}

// lostParent starts a Passerelle in another process, waits until its child is
// ready, kills it, and returns the child.
func lostParent(t *testing.T, o parentOptions) (child held, pid int) {
	t.Helper()
	encoded, err := json.Marshal(o)
	require.NoError(t, err)
	command := exec.Command("/proc/self/exe", "parent", string(encoded))
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	log := newRecord()
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			_, _ = log.Write(lines.Bytes())
		}
		_, _ = io.Copy(io.Discard, out)
	})
	pid = log.pid(t, 1)
	child = hold(t, pid)
	require.NoError(t, command.Process.Kill())
	reading.Wait()
	_ = command.Wait()
	return child, pid
}

// exists says whether there is such a process, be it a zombie.
func exists(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

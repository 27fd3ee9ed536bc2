package child_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"passerelle/config"
	"passerelle/focus/sfu"
)

// logged is one line of a Supervisor's log.
type logged struct {
	Level   string `json:"level"`
	Message string `json:"message"`
	PID     int    `json:"pid"`
	Adopted bool   `json:"taken_over"`
	Line    string `json:"line"`
	Said    string `json:"said"`
	Error   string `json:"error"`

	raw string
}

// diary takes a Supervisor's log and passes on who became ready.
type diary struct {
	ready chan logged

	mu    sync.Mutex
	lines []logged
}

func newDiary() *diary { return &diary{ready: make(chan logged, 64)} }

func (d *diary) Write(line []byte) (int, error) {
	l := logged{raw: string(line)}
	if err := json.Unmarshal(line, &l); err != nil {
		return 0, err
	}
	d.mu.Lock()
	d.lines = append(d.lines, l)
	d.mu.Unlock()
	if l.Message == "The SFU is ready" {
		d.ready <- l
	}
	return len(line), nil
}

func (d *diary) all() []logged {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

// first returns the first line with a message, or nil.
func (d *diary) first(message string) *logged {
	for _, l := range d.all() {
		if l.Message == message {
			return &l
		}
	}
	return nil
}

// next waits for a child to become ready.
func (d *diary) next(t *testing.T) logged {
	t.Helper()
	select {
	case l := <-d.ready:
		return l
	case <-time.After(patience):
		require.FailNow(t, "no SFU became ready", "%v", d.all())
		return logged{}
	}
}

// focus is what the rest of Passerelle does: it makes the room whenever there
// is a new SFU.
type focus struct {
	*sfu.Supervisor
	diary *diary
	fresh chan bool
	ended chan error
	stop  context.CancelFunc
}

// fixed is a configuration that means the same to two Supervisors.
func fixed(t *testing.T) config.Embedded {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	return config.Embedded{Port: port, UDPPort: port, NodeIP: "127.0.0.1", Loopback: true, OrphanTimeout: time.Minute}
}

func newFocus(t *testing.T, dir string, c config.Embedded, webhookURL string) *focus {
	t.Helper()
	f := &focus{diary: newDiary(), fresh: make(chan bool, 16), ended: make(chan error, 1)}
	var err error
	f.Supervisor, err = sfu.New(sfu.Options{
		Config: c, DataDir: dir, WebhookURL: webhookURL, Log: zerolog.New(f.diary), Registerer: prometheus.NewRegistry(),
		OnReady: func(ctx context.Context, fresh bool) error {
			f.fresh <- fresh
			if fresh {
				return f.makeRoom(ctx)
			}
			return nil
		},
	})
	require.NoError(t, err)
	return f
}

func (f *focus) makeRoom(ctx context.Context) error {
	key, secret := f.Key()
	_, err := lksdk.NewRoomServiceClient(f.APIURL().String(), key, secret.Reveal()).
		CreateRoom(ctx, &livekit.CreateRoomRequest{Name: roomName, EmptyTimeout: 60})
	return err
}

func (f *focus) open(t *testing.T) *focus {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() { f.ended <- f.Run(ctx); close(f.ended) }()
	t.Cleanup(func() { f.close(t) })
	return f
}

// annoy has LiveKit complain.
func (f *focus) annoy(t *testing.T, token string) {
	t.Helper()
	for range 3 {
		answer, err := http.Get(f.APIURL().JoinPath("/rtc/validate").String() + "?access_token=" + token)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, http.StatusUnauthorized, answer.StatusCode)
	}
}

// waitReady waits until the room is made as well.
func (f *focus) waitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.WaitReady(ctx))
}

func (f *focus) close(t *testing.T) {
	t.Helper()
	f.stop()
	select {
	case err := <-f.ended:
		require.NoError(t, err)
	case <-time.After(patience):
		require.FailNow(t, "Run does not return")
	}
}

// quiet fails where LiveKit or our child complained.
func (f *focus) quiet(t *testing.T) {
	t.Helper()
	for _, l := range f.diary.all() {
		require.NotEqual(t, "error", l.Level, "%+v", l)
		require.NotEqual(t, "The SFU says", l.Message, "%+v", l)
	}
}

// parent is a Passerelle in another process.
type parent struct {
	command *exec.Cmd
	diary   *diary
	reading sync.WaitGroup
}

func startParent(t *testing.T, dir string, c config.Embedded) *parent {
	t.Helper()
	encoded, err := json.Marshal(parentOptions{Dir: dir, Config: c})
	require.NoError(t, err)
	p := &parent{command: exec.Command("/proc/self/exe", "parent", string(encoded)), diary: newDiary()}
	p.command.Stderr = os.Stderr
	out, err := p.command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.command.Start())
	p.reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			_, _ = p.diary.Write(lines.Bytes())
		}
	})
	t.Cleanup(func() { _ = p.command.Process.Kill() })
	return p
}

// kill is kill -9, and returns when it is gone.
func (p *parent) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.command.Process.Kill())
	p.reading.Wait()
	_ = p.command.Wait()
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

func (p held) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.NoError(t, unix.PidfdSendSignal(p.fd, s, nil, 0))
}

// ends says whether the process ends in time.
func (p held) ends(t *testing.T, within time.Duration) bool {
	t.Helper()
	for deadline := time.Now().Add(within); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline)).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		require.NoError(t, err)
		return n > 0
	}
}

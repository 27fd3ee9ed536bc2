package sfu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

const (
	// pressTimeout is how long a child may take after the second SIGTERM.
	pressTimeout = 2 * time.Second
	// killTimeout is how long the kernel may take after SIGKILL.
	killTimeout = 5 * time.Second
)

// process is the child as the kernel knows it: one that we started, or one
// that we took over. Its handle is a pidfd: it never means another process
// that was given the same number.
type process struct {
	handle *os.Process
	// ended is closed when the child is gone: reaped, if it is ours.
	ended chan struct{}
	// fate says how it ended; read it once ended is closed.
	fate string
}

// spawn starts a child in a session of its own, so that neither Ctrl-C nor
// our own death reaches it, and gives it its settings.
func spawn(executable string, args []string, s Settings, log zerolog.Logger) (*process, error) {
	command := exec.Command(executable, args...)
	command.Args[0] = os.Args[0]
	command.Env = environment(os.Environ())
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the SFU: %w", err)
	}
	stderr, err := command.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start the SFU: %w", err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the SFU: %w", err)
	}
	p := &process{handle: command.Process, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_, _ = stdin.Write(s.encode()) // a child that died meanwhile is seen below
		_ = stdin.Close()
		relay(bufio.NewReaderSize(stderr, maxLogLine), log)
		_ = command.Wait()
		p.fate = command.ProcessState.String()
	}()
	return p, nil
}

// environment is what a child inherits: how the Go runtime shall behave, and
// the time zone. The rest may hold secrets, or a proxy that would be told who
// is in which call.
func environment(ours []string) []string {
	return slices.DeleteFunc(slices.Clone(ours), func(entry string) bool {
		return !strings.HasPrefix(entry, "GO") && !strings.HasPrefix(entry, "TZ=")
	})
}

// takeOver is the process at the other end of a leash, as the kernel names it.
// From here on the end of the leash is the end of the process: one that only
// lets go is killed.
func takeOver(l *leash) (*process, error) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over the SFU: %w", err)
	}
	var handle *os.Process
	var inner error
	err = raw.Control(func(fd uintptr) { handle, inner = peerOf(int(fd)) })
	if err = errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("take over the SFU: %w", err)
	}
	p := &process{handle: handle, ended: make(chan struct{}), fate: "gone"}
	go func() {
		defer close(p.ended)
		<-l.gone
		if !p.exited(pressTimeout) {
			_ = p.handle.Kill()
			p.exited(killTimeout)
		}
	}()
	return p, nil
}

// peerOf opens the process at the other end of a connected Unix socket.
func peerOf(fd int) (*os.Process, error) {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil:
		return nil, err
	case int(peer.Uid) != os.Geteuid():
		return nil, errors.New("it belongs to another user")
	case peer.Pid <= 1 || int(peer.Pid) == os.Getpid():
		return nil, errors.New("it has no process of its own")
	}
	handle, err := os.FindProcess(int(peer.Pid))
	if err != nil {
		return nil, err
	}
	// The process could have died and its number been given away before the
	// handle was opened. If its end of the socket is still open now, it was
	// there all the time.
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if _, err := unix.Poll(poll, 0); err != nil || poll[0].Revents&(unix.POLLHUP|unix.POLLRDHUP|unix.POLLERR) != 0 {
		return nil, errors.Join(errNoChild, err, handle.Release())
	}
	return handle, nil
}

// exited waits for the end of a process that is not our child, and says
// whether it came: there is nothing to reap.
func (p *process) exited(patience time.Duration) (exited bool) {
	err := p.handle.WithHandle(func(pidfd uintptr) {
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		for deadline := time.Now().Add(patience); ; {
			n, err := unix.Poll(poll, int(max(0, time.Until(deadline)).Milliseconds()))
			if !errors.Is(err, unix.EINTR) {
				exited = n > 0
				return
			}
		}
	})
	return exited && err == nil
}

// stop ends the child: SIGTERM, so that it tells the clients; a second one
// when its time is over; SIGKILL when that does not help either.
func (p *process) stop(patience time.Duration, log zerolog.Logger) {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, patience}, {syscall.SIGTERM, pressTimeout}, {syscall.SIGKILL, killTimeout}} {
		if err := p.handle.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			log.Err(err).Msg("The SFU could not be signalled")
		}
		if p.wait(step.wait) {
			return
		}
		log.Warn().Stringer("signal", step.signal).Msg("The SFU did not end in time")
	}
}

func (p *process) wait(patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case <-p.ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// how says how the child ended.
func (p *process) how() string {
	select {
	case <-p.ended:
		return p.fate
	default:
		return "not even killed"
	}
}

// kill ends the child at once.
func (p *process) kill() {
	_ = p.handle.Kill()
	p.wait(killTimeout)
}

package sfu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// process is the child as the kernel knows it: one that we started, or one
// that we took over.
type process struct {
	handle *os.Process
	// ended is closed when the child is gone: reaped, if it is ours.
	ended chan struct{}
}

// spawn starts a child in a session of its own, so that neither Ctrl-C nor
// our own death reaches it, and gives it its settings.
func spawn(executable string, args []string, s Settings, log zerolog.Logger) (*process, error) {
	encoded, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	command := exec.Command(executable, args...)
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
		_, _ = stdin.Write(encoded) // a child that died meanwhile is seen below
		_ = stdin.Close()
		relay(bufio.NewReaderSize(stderr, 16<<10), log)
		_ = command.Wait()
	}()
	return p, nil
}

// takeOver is the process at the other end of a leash. The kernel names it,
// and the handle stays its own even when its number is given to another.
func takeOver(l *leash) (*process, error) {
	raw, err := l.conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over the SFU: %w", err)
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || peerErr != nil {
		return nil, fmt.Errorf("take over the SFU: %w", errors.Join(err, peerErr))
	}
	if int(peer.Uid) != os.Geteuid() {
		return nil, errors.New("take over the SFU: it belongs to another user")
	}
	handle, err := os.FindProcess(int(peer.Pid))
	if err != nil {
		return nil, fmt.Errorf("take over the SFU: %w", err)
	}
	// It is not our child, so there is nothing to reap: its end of the leash
	// closes when it ends.
	return &process{handle: handle, ended: l.gone}, nil
}

// stop ends the child: SIGTERM, so that it tells the clients; a second one
// when its time is over; SIGKILL when that does not help either.
func (p *process) stop(patience time.Duration, log zerolog.Logger) {
	for _, step := range []struct {
		signal os.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, patience}, {syscall.SIGTERM, 2 * time.Second}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := p.handle.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			log.Err(err).Msg("The SFU could not be signalled")
		}
		timer := time.NewTimer(step.wait)
		select {
		case <-p.ended:
			timer.Stop()
			return
		case <-timer.C:
			log.Warn().Stringer("signal", step.signal).Msg("The SFU did not end in time")
		}
	}
}

// kill ends the child at once.
func (p *process) kill() {
	_ = p.handle.Kill()
	<-p.ended
}

// token matches JSON web tokens, some of which LiveKit writes into its log.
var token = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)

// relay writes the child's lines into our log until they end. Lines longer
// than the reader's buffer are cut.
func relay(lines *bufio.Reader, log zerolog.Logger) {
	for {
		line, long, err := lines.ReadLine()
		if err != nil {
			return
		}
		text := token.ReplaceAllString(strings.ToValidUTF8(string(line), "?"), "<token>")
		for long && err == nil {
			_, long, err = lines.ReadLine()
		}
		event := log.Warn()
		if strings.HasPrefix(text, `{"level":"info"`) || strings.HasPrefix(text, `{"level":"debug"`) {
			event = log.Debug()
		}
		if json.Valid([]byte(text)) {
			event.RawJSON("livekit", []byte(text)).Msg("The SFU says")
		} else {
			event.Str("livekit", text).Msg("The SFU says")
		}
	}
}

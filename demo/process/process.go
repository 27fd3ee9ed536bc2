// Package process runs a server of the demonstration or of the benchmark: its
// words go to a file, it ends when it is told to or when we die, and it is
// reaped.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Process is one server.
type Process struct {
	// Ended is closed when the process is gone.
	Ended <-chan struct{}

	name    string
	log     string
	command *exec.Cmd
}

// Start starts command, whose output goes to the end of the file log. name is for people.
// orphaned is the signal that it gets when we die.
func Start(name, log string, orphaned syscall.Signal, command *exec.Cmd) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	command.Stdout, command.Stderr = file, file
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphaned}
	ended := make(chan struct{})
	started := make(chan error, 1)
	go func() {
		// The kernel sends the signal when the thread that started the process
		// ends, so this one is kept until the process has.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			defer close(ended)
			_ = command.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &Process{Ended: ended, name: name, log: log, command: command}, nil
}

// PID is the number of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// pollInterval is how often a server is asked whether it answers yet.
const pollInterval = 50 * time.Millisecond

// Await returns once the server answers.
func (p *Process) Await(ctx context.Context, answers func(context.Context) bool) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for !answers(ctx) {
		select {
		case <-ticker.C:
		case <-p.Ended:
			return fmt.Errorf("%s ended while it started:\n%s", p.name, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w\n%s", p.name, ctx.Err(), p.lastWords())
		}
	}
	return nil
}

// AwaitAnswer returns once the server answers 200 at an address.
func (p *Process) AwaitAnswer(ctx context.Context, client *http.Client, address string) error {
	return p.Await(ctx, func(ctx context.Context) bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return false
		}
		answer, err := client.Do(request)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// FreePorts finds TCP ports of an address that nobody uses now.
func FreePorts(address string, n int) (ports []int, err error) {
	for range n {
		// All stay open until the last is found, so that none is found twice.
		listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			return nil, fmt.Errorf("the loopback address %s cannot be used: %w", address, err)
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// Stop ends the server, politely for as long as patience lasts, and returns
// when it is gone.
func (p *Process) Stop(patience time.Duration) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, patience}, {syscall.SIGKILL, 5 * time.Second}} {
		if err := p.command.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", p.name, err)
		}
		timer := time.NewTimer(step.wait)
		select {
		case <-p.Ended:
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
	return fmt.Errorf("%s does not end", p.name)
}

// Kill ends the server at once, as kill -9 does, and returns when it is gone.
func (p *Process) Kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.Ended
	return nil
}

// lastWords is the end of what the server said.
func (p *Process) lastWords() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

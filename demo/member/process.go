package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Process is a member that runs.
type Process struct {
	// Reports come here; it is closed when the member's process is gone.
	Reports <-chan Report

	process *os.Process
	stdin   io.WriteCloser
	ended   chan struct{}
}

// network is where a member is started: a [wire.Wire], or nil for this
// machine's own network.
type network interface {
	Start(command *exec.Cmd) error
}

// ErrEnded says that a member's process is gone.
var ErrEnded = errors.New("the member's process has ended")

// ErrGaveUp says that LiveKit's client gave up by itself.
var ErrGaveUp = errors.New("disconnected")

// maxReports bounds the reports that nobody has read; a member that has more
// to say waits.
const maxReports = 64

// Start starts a member: this very program, with the argument [Command]. It
// ends by Leave or Kill, or when this process dies.
func Start(grant Grant, in network) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, Command)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	reports := make(chan Report, maxReports)
	p := &Process{Reports: reports, stdin: stdin, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel kills the process when the thread that started it ends, so
		// this one is kept until the process has. In a network of its own it is
		// that network's thread, which is kept there.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if in != nil {
			started <- in.Start(command)
		} else {
			started <- command.Start()
		}
		if command.Process == nil {
			return
		}
		defer close(p.ended)
		defer close(reports)
		for decoder := json.NewDecoder(stdout); ; {
			var report Report
			if decoder.Decode(&report) != nil {
				break
			}
			reports <- report
		}
		_ = command.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a member: %w", err)
	}
	p.process = command.Process
	if err := json.NewEncoder(stdin).Encode(grant); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start a member: %w", err)
	}
	return p, nil
}

// Await waits for a report of that kind.
func (p *Process) Await(ctx context.Context, what string) (Report, error) {
	for {
		select {
		case report, ok := <-p.Reports:
			switch {
			case !ok:
				return report, fmt.Errorf("wait until %s: %w", what, ErrEnded)
			case report.What == what:
				return report, nil
			case report.What == Disconnected:
				return report, fmt.Errorf("wait until %s: %w: %s", what, ErrGaveUp, report.Why)
			}
		case <-ctx.Done():
			return Report{}, fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
}

// Leave has it leave as a button does.
func (p *Process) Leave() error {
	_, err := io.WriteString(p.stdin, leave+"\n")
	return err
}

// Kill ends it without a goodbye and returns when it is gone.
func (p *Process) Kill() {
	_ = p.process.Kill()
	for range p.Reports { // it may be waiting to say something
	}
	<-p.ended
}

// Freeze stops it as a machine that sleeps does; Thaw lets it go on.
func (p *Process) Freeze() error { return p.process.Signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (p *Process) Thaw() error { return p.process.Signal(syscall.SIGCONT) }

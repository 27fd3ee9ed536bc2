package caller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// browser is a running Chromium, in a process group of its own.
type browser struct {
	pid    int
	said   *ring         // the end of its stderr
	listen chan string   // the address of its DevTools, once
	exited chan struct{} // closed when it was waited for
}

// flags that do not depend on the caller. No name of the outside world is
// resolved and nothing is fetched that the page did not ask for.
var flags = []string{
	"--headless=new",
	"--disable-gpu",
	"--disable-quic",
	"--no-first-run",
	"--no-default-browser-check",
	"--disable-audio-output",
	"--disable-background-networking",
	"--disable-background-timer-throttling",
	"--disable-backgrounding-occluded-windows",
	"--disable-renderer-backgrounding",
	"--disable-breakpad",
	"--disable-component-update",
	"--disable-default-apps",
	"--disable-dev-shm-usage",
	"--disable-extensions",
	"--disable-sync",
	"--password-store=basic",
	"--use-fake-ui-for-media-stream",
	"--use-fake-device-for-media-stream",
	"--autoplay-policy=no-user-gesture-required",
	"--allow-loopback-in-peer-connection",
	"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*, EXCLUDE localhost, EXCLUDE *.localhost",
	"--remote-debugging-address=127.0.0.1",
	"--remote-debugging-port=0",
	"--window-size=1280,800",
}

// launch starts Chromium with a fresh profile and a sound file as microphone.
func launch(program, profile, sound string) (*browser, error) {
	if err := os.Mkdir(profile, 0o700); err != nil {
		return nil, fmt.Errorf("making the browser's profile: %w", err)
	}
	args := append([]string{"--user-data-dir=" + profile, "--use-file-for-fake-audio-capture=" + sound}, flags...)
	if os.Geteuid() == 0 {
		// Chromium refuses to run as root with its sandbox.
		args = append(args, "--no-sandbox")
	}
	b := &browser{said: &ring{}, listen: make(chan string, 1), exited: make(chan struct{})}
	cmd := exec.Command(program, append(args, "about:blank")...)
	// Settings of the person who runs this must not reach the browser, nor its
	// files their home.
	cmd.Env = append(os.Environ(), "HOME="+profile, "XDG_CONFIG_HOME="+profile, "XDG_CACHE_HOME="+profile,
		"DBUS_SESSION_BUS_ADDRESS=/dev/null", "DBUS_SYSTEM_BUS_ADDRESS=/dev/null")
	cmd.Stderr = &stderr{browser: b}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	started := make(chan error, 1)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the process
		// ends, so this one is kept until the process has.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			b.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		if err := cmd.Wait(); err != nil {
			b.said.add("browser: " + err.Error())
		}
		close(b.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting the browser %s: %w", program, err)
	}
	return b, nil
}

// removeSocket removes the folder that Chromium makes for the socket of a
// profile, beside the profile because the address of a socket must be short. A
// browser that is killed leaves it.
func removeSocket(profile string) error {
	socket, err := os.Readlink(filepath.Join(profile, "SingletonSocket"))
	if err != nil {
		return nil // it never came so far
	}
	folder := filepath.Dir(socket)
	if !strings.HasPrefix(filepath.Base(folder), "org.chromium.Chromium.") {
		return nil // not one that it made
	}
	return removeAll(folder)
}

// devtools waits for the WebSocket address of the browser's DevTools.
func (b *browser) devtools(ctx context.Context) (string, error) {
	select {
	case address := <-b.listen:
		return address, nil
	case <-b.exited:
		return "", errors.New("the browser ended before it could be driven")
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for the browser: %w", context.Cause(ctx))
	}
}

// kill ends the whole process group at once. After the browser was waited for
// its number may be another's: then nothing is sent.
func (b *browser) kill() {
	if !b.ended() {
		_ = syscall.Kill(-b.pid, syscall.SIGKILL)
	}
}

func (b *browser) ended() bool {
	select {
	case <-b.exited:
		return true
	default:
		return false
	}
}

// stderr reads what the browser says, line by line, and finds the address of
// its DevTools there.
type stderr struct {
	browser *browser
	mu      sync.Mutex
	rest    []byte
}

const devtoolsLine = "DevTools listening on "

func (s *stderr) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, p...)
	for {
		line, rest, found := bytes.Cut(s.rest, []byte("\n"))
		if !found {
			s.rest = s.rest[:min(len(s.rest), maxLine)]
			return len(p), nil
		}
		s.rest = rest
		text := strings.TrimSpace(string(line))
		if address, ok := strings.CutPrefix(text, devtoolsLine); ok {
			select {
			case s.browser.listen <- address:
			default:
			}
			continue
		}
		s.browser.said.add(text)
	}
}

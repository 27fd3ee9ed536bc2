package sfu

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/config"
)

const (
	// startTimeout bounds the time from a child's start to its readiness.
	startTimeout = 20 * time.Second
	// stableAfter is how long a child must have run for its death to count as
	// a first one.
	stableAfter  = 30 * time.Second
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// Options are what a Supervisor needs.
type Options struct {
	Config config.Embedded
	// DataDir holds the key, the lock and the control socket.
	DataDir string
	// WebhookURL is where LiveKit reports; "" for nowhere.
	WebhookURL string
	// StopTimeout is how long a child may take to end before it is pressed.
	StopTimeout time.Duration
	// Executable and Args start a child; empty is this binary with "sfu".
	Executable string
	Args       []string
	// OnReady is called each time a child can take participants, before
	// WaitReady lets anybody through. fresh is true for a new child, which
	// knows no rooms. Its error is logged.
	OnReady    func(ctx context.Context, fresh bool) error
	Log        zerolog.Logger
	Registerer prometheus.Registerer
}

// Supervisor keeps one SFU running.
type Supervisor struct {
	options  Options
	settings Settings
	log      zerolog.Logger
	metrics  metrics

	mu    sync.Mutex
	ready chan struct{} // closed while a child can take participants
}

// New makes the data folder and the key in it, if there are none. It starts
// nothing. Ports that the configuration leaves open (0) are chosen here, and
// another process could take them before the child does; that is for tests.
func New(o Options) (*Supervisor, error) {
	if o.Executable == "" {
		executable, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find our own binary: %w", err)
		}
		o.Executable, o.Args = executable, []string{"sfu"}
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("server.data_dir: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("server.data_dir: %w", err)
	}
	key, err := loadKey(dir)
	if err != nil {
		return nil, err
	}
	settings, err := newSettings(o.Config, dir, o.WebhookURL, key)
	if err != nil {
		return nil, err
	}
	return &Supervisor{
		options: o, settings: settings, log: o.Log,
		metrics: newMetrics(o.Registerer),
		ready:   make(chan struct{}),
	}, nil
}

// APIURL is where the SFU's room service and signalling are.
func (s *Supervisor) APIURL() *url.URL {
	return &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.settings.Port))}
}

// Key is the API key that is shared with the SFU.
func (s *Supervisor) Key() (id string, secret config.Secret) {
	return s.settings.Key, config.Secret(s.settings.Secret)
}

// WaitReady returns nil once the SFU can take participants.
func (s *Supervisor) WaitReady(ctx context.Context) error {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	select {
	case <-ready:
		return nil
	default:
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return errors.New("the SFU is not running yet")
	}
}

// Run takes over the SFU that runs already or starts one, restarts it when it
// ends, and stops it when ctx is done. It returns when the SFU is gone. A
// Passerelle that dies without that leaves the SFU running for the next one.
func (s *Supervisor) Run(ctx context.Context) error {
	dir, err := lockFolder(s.settings.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		started := time.Now()
		err := s.attend(ctx, dir)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(started) > stableAfter {
			backoff = 0
		}
		s.log.Warn().Err(err).Dur("pause_ms", backoff).Msg("The SFU ended; it is started again")
		s.metrics.restarts.Inc()
		if !pause(ctx, backoff) {
			return nil
		}
		backoff = nextBackoff(backoff)
	}
	return nil
}

// nextBackoff doubles the pause up to its cap.
func nextBackoff(last time.Duration) time.Duration {
	return min(max(firstBackoff, 2*last), maxBackoff)
}

// pause waits for d, give or take a quarter, and reports whether ctx lasted.
func pause(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		d += rand.N(d/2) - d/4
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attend sees one child through its life, from start or takeover to its end.
func (s *Supervisor) attend(ctx context.Context, dir *os.File) error {
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	began := time.Now()
	child, l, err := s.adopt(starting, dir)
	fresh := errors.Is(err, errNoChild)
	if fresh {
		child, l, err = s.start(starting, dir)
	}
	if err != nil {
		return err
	}
	defer l.conn.Close()
	if err := l.awaitReady(starting); err != nil {
		child.kill()
		return fmt.Errorf("wait for the SFU: %w", err)
	}
	if s.options.OnReady != nil {
		if err := s.options.OnReady(starting, fresh); err != nil {
			s.log.Err(err).Msg("What follows the SFU's start was not done")
		}
	}
	s.log.Info().Bool("taken_over", !fresh).Int("pid", l.hello.PID).Dur("after_ms", time.Since(began)).Msg("The SFU is ready")
	s.setReady(true)
	defer s.setReady(false)
	select {
	case <-child.ended:
		return errors.New("its process is gone")
	case <-ctx.Done():
		child.stop(s.options.StopTimeout, s.log)
		return nil
	}
}

// adopt takes over the child that runs in the folder. One that runs with
// other settings is stopped; the error is errNoChild then too.
func (s *Supervisor) adopt(ctx context.Context, dir *os.File) (*process, *leash, error) {
	l, err := connect(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	child, err := takeOver(l)
	if err != nil {
		return nil, nil, errors.Join(err, l.conn.Close())
	}
	if l.hello.Fingerprint == s.settings.Fingerprint() {
		return child, l, nil
	}
	s.log.Info().Msg("An SFU runs with other settings; it is replaced")
	child.stop(s.options.StopTimeout, s.log)
	return nil, nil, errors.Join(errNoChild, l.conn.Close())
}

// start starts a child and takes its leash.
func (s *Supervisor) start(ctx context.Context, dir *os.File) (*process, *leash, error) {
	child, err := spawn(s.options.Executable, s.options.Args, s.settings, s.log)
	if err != nil {
		return nil, nil, err
	}
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		l, err := connect(ctx, dir)
		if err == nil {
			return child, l, nil
		}
		if !errors.Is(err, errNoChild) {
			child.kill()
			return nil, nil, err
		}
		select {
		case <-retry.C:
		case <-child.ended:
			return nil, nil, errors.New("the SFU ended while it started; its last words are above")
		case <-ctx.Done():
			child.kill()
			return nil, nil, fmt.Errorf("wait for the SFU: %w", ctx.Err())
		}
	}
}

func (s *Supervisor) setReady(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ready {
		close(s.ready)
		s.metrics.up.Set(1)
		return
	}
	s.ready = make(chan struct{})
	s.metrics.up.Set(0)
}

// lockFolder opens the data folder and locks it until it is closed: two
// Passerelles would take the same child in turns.
func lockFolder(path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("server.data_dir: %w", err)
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("server.data_dir: another Passerelle uses %s (give each its own)", path), dir.Close())
	}
	return dir, nil
}

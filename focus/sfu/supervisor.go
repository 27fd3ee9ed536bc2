package sfu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/config"
)

const (
	defaultStartTimeout = 20 * time.Second
	defaultStopTimeout  = 10 * time.Second
	// readyTimeout bounds what follows a start.
	readyTimeout = 15 * time.Second
)

// Options are what a Supervisor needs.
type Options struct {
	Config config.Embedded
	// DataDir holds the key, the lock and the control socket.
	DataDir string
	// WebhookURL is where LiveKit reports; "" for nowhere.
	WebhookURL string
	// StartTimeout is how long a child may take from its start until it can
	// take participants; 0 is 20 s.
	StartTimeout time.Duration
	// StopTimeout is how long a child may take to end before it is pressed;
	// 0 is 10 s.
	StopTimeout time.Duration
	// HungAfter is how long a child that runs may leave questions without an
	// answer before it is ended; 0 is 30 s.
	HungAfter time.Duration
	// Executable and Args start a child. Empty is the running binary, even if
	// another one has taken its place on the disk, with "sfu".
	Executable string
	Args       []string
	// OnReady is called each time a child can take participants, before
	// WaitReady lets anybody through. fresh is true for a new child, which
	// knows no rooms. ctx ends after 15 s, and with the child. Its error is
	// logged.
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
// another process could take them before the child does; and as they are
// chosen anew each time, a child that runs with such ports is never taken
// over, but replaced.
func New(o Options) (*Supervisor, error) {
	if o.Registerer == nil || o.DataDir == "" || o.Config.OrphanTimeout <= 0 {
		return nil, errors.New("sfu: Options need a Registerer, a DataDir and an OrphanTimeout")
	}
	// A path would be that of another version after an upgrade, or of nothing.
	o.Executable = cmp.Or(o.Executable, "/proc/self/exe")
	if o.Args == nil {
		o.Args = []string{"sfu"}
	}
	o.StartTimeout = cmp.Or(o.StartTimeout, defaultStartTimeout)
	o.StopTimeout = cmp.Or(o.StopTimeout, defaultStopTimeout)
	o.HungAfter = cmp.Or(o.HungAfter, defaultHungAfter)
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

// WaitReady returns nil once the SFU can take participants, at once if it can.
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
		return fmt.Errorf("the SFU is not running yet: %w", context.Cause(ctx))
	}
}

// Run takes over the SFU that runs already or starts one, restarts it when it
// ends, and stops it when ctx is done. It returns when the SFU is gone. A
// Passerelle that dies without that leaves the SFU running for the next one.
// The only errors are those of a folder which another Passerelle uses, and of
// one that is gone when an SFU must be started.
func (s *Supervisor) Run(ctx context.Context) error {
	dir, err := lockFolder(s.settings.Dir)
	if err != nil {
		return err
	}
	defer dir.unlock()
	return s.keep(ctx, func(ctx context.Context) error {
		if err := dir.check(s.settings.Dir); err != nil {
			return err
		}
		return s.attend(ctx, dir.File)
	})
}

// attend sees one child through its life, from start or takeover to its end.
func (s *Supervisor) attend(ctx context.Context, dir *os.File) error {
	child, l, err := s.adopt(ctx, dir)
	fresh := errors.Is(err, errNoChild)
	began := time.Now()
	starting, cancel := context.WithTimeoutCause(ctx, s.options.StartTimeout, errors.New("it takes too long"))
	defer cancel()
	if fresh {
		child, l, err = s.start(starting, dir)
	}
	if err != nil {
		return err
	}
	defer l.conn.Close()
	if err := l.awaitReady(starting); err != nil {
		if errors.Is(err, errLetGo) {
			child.wait(pressTimeout) // it may have last words
		}
		s.abandon(starting, child)
		return fmt.Errorf("wait for the SFU: %w", err)
	}
	if fresh {
		s.metrics.start.Observe(time.Since(began).Seconds())
	}
	s.log.Info().Bool("taken_over", !fresh).Int("pid", child.handle.Pid).
		Dur("after_ms", time.Since(began)).Msg("The SFU is ready")
	s.follow(ctx, child, fresh)
	s.setReady(true)
	defer s.setReady(false)
	life := s.feel(ctx)
	defer life.stop()
	select {
	case <-child.ended:
	case <-life.hung:
		child.kill() // it would not hear a signal that it has to handle
		return errHung
	case <-l.gone:
		child.wait(pressTimeout)
	case <-ctx.Done():
	}
	// A child that let go but lives is of no use either.
	child.stop(s.options.StopTimeout, s.log)
	return fmt.Errorf("%w (%s)", errEnded, child.how())
}

// errEnded is the end of a child that had been ready.
var errEnded = errors.New("its process ended")

// abandon ends a child that did not become ready: politely if that is because
// we end, else at once.
func (s *Supervisor) abandon(ctx context.Context, child *process) {
	if errors.Is(ctx.Err(), context.Canceled) {
		child.stop(s.options.StopTimeout, s.log)
		return
	}
	child.kill()
}

// follow calls OnReady, for as long as the child lives.
func (s *Supervisor) follow(ctx context.Context, child *process, fresh bool) {
	if s.options.OnReady == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-child.ended:
			cancel()
		case <-ctx.Done():
		}
	})
	if err := s.options.OnReady(ctx, fresh); err != nil {
		s.log.Error().Err(err).Msg("What follows the SFU's start was not done")
	}
	cancel()
	watch.Wait()
}

// adopt takes over the child that runs in the folder. One that runs with
// other settings, or says nothing that we understand, is stopped; the error is
// errNoChild then too.
func (s *Supervisor) adopt(ctx context.Context, dir *os.File) (*process, *leash, error) {
	l, err := connect(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	child, err := takeOver(l)
	if err != nil {
		return nil, nil, errors.Join(err, l.conn.Close())
	}
	h, err := l.greet(ctx)
	if err == nil && h.Fingerprint == s.settings.Fingerprint() {
		return child, l, nil
	}
	s.log.Info().Err(err).Msg("An SFU runs with other settings; it is replaced")
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
			var h hello
			if h, err = l.greet(ctx); err == nil && h.PID == child.handle.Pid {
				return child, l, nil
			}
			s.abandon(ctx, child)
			return nil, nil, errors.Join(fmt.Errorf("greet the SFU: %w", cmp.Or(err, errLanguage)), l.conn.Close())
		}
		select {
		case <-retry.C:
		case <-child.ended:
			return nil, nil, fmt.Errorf("the SFU ended while it started (%s); its last words are above", child.how())
		case <-ctx.Done():
			s.abandon(ctx, child)
			return nil, nil, fmt.Errorf("wait for the SFU: %w", errors.Join(context.Cause(ctx), err))
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

package sfu

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// defaultHungAfter is far longer than an SFU is silent on a machine that has
	// too much to do: to end it ends all calls.
	defaultHungAfter = 30 * time.Second
	// pulses is how many questions in a row must stay without an answer for that.
	pulses = 3
)

// errHung is the end of a child that lived and did nothing.
var errHung = errors.New("it did not answer and was ended")

// pulse asks the SFU again and again whether it lives.
type pulse struct {
	// hung is closed when it did not answer for long.
	hung   chan struct{}
	cancel context.CancelFunc
	asking sync.WaitGroup
}

// feel starts to ask; call stop in the end. Any answer is one, and a connection
// that is refused is no silence: the kernel takes connections for a process
// that hangs, and LiveKit ends itself when it cannot listen.
func (s *Supervisor) feel(ctx context.Context) *pulse {
	ctx, cancel := context.WithCancel(ctx)
	p := &pulse{hung: make(chan struct{}), cancel: cancel}
	each := s.options.HungAfter / pulses
	client := &http.Client{Timeout: each, Transport: &http.Transport{DisableKeepAlives: true}}
	p.asking.Go(func() {
		ticker := time.NewTicker(each)
		defer ticker.Stop()
		for silent := 0; silent < pulses; {
			if silence(ctx, client, s.APIURL().String()) {
				silent++
				continue // it has taken as long as a pause
			}
			silent = 0
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
		close(p.hung)
	})
	return p
}

func (p *pulse) stop() {
	p.cancel()
	p.asking.Wait()
}

// silence says whether a question stayed without an answer until its time was
// over.
func silence(ctx context.Context, client *http.Client, address string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err == nil {
		_ = answer.Body.Close()
		return false
	}
	late, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ctx.Err() == nil && ok && late.Timeout()
}

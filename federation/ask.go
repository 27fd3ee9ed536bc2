package federation

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/rs/zerolog"
)

// asker asks other homeservers, a bounded number of questions each, and leaves
// those that keep failing alone.
type asker struct {
	client *client
	peers  *peers
	log    zerolog.Logger
}

func newAsker(o Options) (*asker, error) {
	if o.Policy == nil {
		return nil, errors.New("federation: no policy")
	}
	if o.Config.Timeout <= 0 {
		return nil, errors.New("federation.timeout: must be more than 0")
	}
	client, err := newClient(o)
	if err != nil {
		return nil, err
	}
	peers := newPeers(maxPeers)
	peers.insist = o.Insist
	return &asker{client: client, peers: peers, log: o.Log}, nil
}

// ask puts the question to the server when it is its turn, once and without a
// retry. It takes at most the configured timeout. No error holds the query.
func (a *asker) ask(caller context.Context, server, path string, query url.Values) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(caller, a.client.timeout)
	defer cancel()
	p, err := a.peers.acquire(server)
	if err != nil {
		return 0, nil, err
	}
	defer a.peers.release(p)
	leave, err := p.enter(ctx)
	if err != nil {
		return 0, nil, reasonToWait(err)
	}
	verdict, began := noVerdict, time.Now()
	defer func() {
		if leave(verdict) {
			a.log.Warn().Str("server_name", server).Stringer("breaker", p.breaker.state()).AnErr("reason", err).
				Msg("Homeserver is left alone after failures, or asked again")
		}
	}()
	status, body, err = a.client.get(ctx, p, path, query)
	switch {
	case errors.Is(caller.Err(), context.Canceled):
		// Whoever asked went away.
	case errors.Is(err, errTimeout) && time.Since(began) < a.client.timeout/2:
		// Most of the time went by in the queue.
	case err != nil || status >= http.StatusInternalServerError:
		verdict = failed
	default:
		verdict = answered
	}
	return status, body, err
}

// reasonToWait is why there was no turn.
func reasonToWait(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errTimeout
	}
	return err
}

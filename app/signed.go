package app

import (
	"context"
	"errors"
	"net/http"

	"passerelle/config"
	"passerelle/federation"
	"passerelle/focus/signed"
)

// buildSigned: other homeservers ask us themselves, and we know them by their
// signatures.
func (a *App) buildSigned(_ context.Context, c *config.Config) error {
	if !c.Federation.SignedRequests {
		return nil
	}
	signatures, err := federation.NewSignatures(federation.Options{
		Config: c.Federation, Policy: a.policy, Registerer: a.registry,
		Log: a.log.With().Str("component", "federation").Logger(),
	}, c.Homeserver.ServerName)
	if err != nil {
		return err
	}
	a.life.onStop("signatures", func(context.Context) error { signatures.Close(); return nil })
	a.signed = signed.New(signed.Options{
		Verifier: verifier{signatures}, Limits: a.limits, Token: a.focus.ServeVouched,
	})
	return nil
}

// verifier says why a request is refused in words that its sender may read.
type verifier struct{ signatures *federation.Signatures }

// Verify implements [signed.Verifier].
func (v verifier) Verify(ctx context.Context, r signed.Request) (string, []byte, error) {
	origin, content, err := v.signatures.Verify(ctx, federation.SignedRequest(r))
	switch {
	case errors.Is(err, federation.ErrNotAllowed):
		return "", nil, signed.ErrNotAllowed
	case errors.Is(err, federation.ErrContent):
		return "", nil, signed.ErrContent
	case err != nil:
		return "", nil, signed.ErrSignature
	}
	return origin, content, nil
}

// signedFirst is the public listener's handler where other homeservers come to
// it as well. What they ask is theirs alone: no browser is told of it.
type signedFirst struct {
	*public
	listener *signed.Listener
}

// ServeHTTP implements [http.Handler].
func (s signedFirst) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.listener.Serves(r) {
		s.public.ServeHTTP(w, r)
		return
	}
	defer s.recovered(w, r)
	r.RemoteAddr = s.proxies.client(r)
	s.listener.ServeHTTP(w, r)
}

// withSigned puts it before the handler, where it is on.
func (a *App) withSigned(rest *public) http.Handler {
	if a.signed == nil {
		return rest
	}
	return signedFirst{rest, a.signed}
}

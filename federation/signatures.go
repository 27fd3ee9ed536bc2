package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/crypto/canonicaljson"
	"maunium.net/go/mautrix/federation/signutil"
	"maunium.net/go/mautrix/id"

	"passerelle/focus/matrixrtc"
)

var (
	// ErrNotSigned is returned when the header is missing, stands twice, or is
	// not one of X-Matrix.
	ErrNotSigned = errHeader
	// ErrOtherDestination is returned for a request to another server.
	ErrOtherDestination = errors.New("the request is for another server")
	// ErrContent is returned for a body that is no JSON object, or one that is
	// nested too deeply.
	ErrContent = errors.New("the body is not a JSON object")
	// ErrSignature is returned when the key has not signed this request.
	ErrSignature = errors.New("the signature is not that of this request")
)

// SignedRequest is a request as it came from another homeserver.
type SignedRequest struct {
	// Authorization are all headers of that name.
	Authorization []string
	Method        string
	// URI is path and query, as they came.
	URI string
	// Body is bounded by the caller.
	Body []byte
}

// Signatures proves which homeserver has sent a request, by the signature in
// its Authorization header (X-Matrix; server-server API, "Request
// Authentication"). Keys stand in the rules, or are asked of the server itself.
//
// A signature has no time: the same request, sent again by whoever has seen it,
// is good as long as its key is.
type Signatures struct {
	policy   *Policy
	server   string
	keys     *keyring
	log      zerolog.Logger
	requests *prometheus.CounterVec
}

// NewSignatures returns Signatures of requests to the server of that name.
// Close lets go of their connections.
func NewSignatures(o Options, server string) (*Signatures, error) {
	asker, err := newAsker(o)
	if err != nil {
		return nil, err
	}
	if !validServerName(server) {
		return nil, errors.New("federation: no server name of our own")
	}
	s := &Signatures{policy: o.Policy, server: server, keys: newKeyring(asker), log: o.Log,
		requests: promauto.With(o.Registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "passerelle_federation_signed_requests_total",
			Help: "Requests of other homeservers whose signature was looked at, by outcome.",
		}, []string{"outcome"})}
	for _, outcome := range signatureOutcomes {
		s.requests.WithLabelValues(outcome.name)
	}
	s.requests.WithLabelValues("verified")
	return s, nil
}

var signatureOutcomes = []struct {
	err  error
	name string
}{
	{ErrNotSigned, "not_signed"}, {ErrOtherDestination, "other_destination"}, {ErrNotAllowed, "not_allowed"},
	{ErrContent, "content"}, {ErrUnknownKey, "unknown_key"}, {ErrNoKeys, "no_keys"}, {ErrSignature, "signature"},
}

// Close lets go of the connections that no question uses.
func (s *Signatures) Close() { s.keys.asker.client.close() }

// Verify returns which server has signed the request, and the content that it
// has signed: the body in canonical JSON, to be read in its place. Nothing goes
// out before the policy lets the server join. Errors are [ErrNotSigned],
// [ErrOtherDestination], [ErrNotAllowed], [ErrContent], [ErrUnknownKey],
// [ErrNoKeys] and [ErrSignature].
func (s *Signatures) Verify(ctx context.Context, r SignedRequest) (origin string, content []byte, err error) {
	origin, content, err = s.verify(ctx, r)
	outcome := "verified"
	for _, o := range signatureOutcomes {
		if errors.Is(err, o.err) {
			outcome = o.name
		}
	}
	s.requests.WithLabelValues(outcome).Inc()
	if err != nil {
		s.log.Debug().Err(err).Msg("A request of another homeserver is not believed")
	}
	return origin, content, err
}

func (s *Signatures) verify(ctx context.Context, r SignedRequest) (string, []byte, error) {
	header, err := parseXMatrix(r.Authorization)
	switch {
	case err != nil:
		return "", nil, err
	case header.destination != s.server:
		return "", nil, ErrOtherDestination
	case strings.EqualFold(header.origin, s.server) || !s.policy.Access(header.origin).Join:
		return "", nil, ErrNotAllowed // our own users do not come this way
	case !flatObject(r.Body):
		return "", nil, ErrContent
	}
	key, err := s.key(ctx, header.origin, id.KeyID(header.key))
	if err != nil {
		return "", nil, err
	}
	// What was signed is read, not what came: two readers of JSON that is not
	// canonical may see two things in it.
	content, err := canonicaljson.Marshal(json.RawMessage(r.Body))
	if err != nil || !flatObject(content) {
		return "", nil, ErrContent
	}
	signed, err := canonicaljson.Marshal(struct {
		Method      string          `json:"method"`
		URI         string          `json:"uri"`
		Origin      string          `json:"origin"`
		Destination string          `json:"destination"`
		Content     json.RawMessage `json:"content"`
	}{r.Method, r.URI, header.origin, s.server, content})
	if err != nil || signutil.VerifyJSONCanonical(key, header.signature, signed) != nil {
		return "", nil, ErrSignature
	}
	return header.origin, content, nil
}

// key is the origin's, from the rules or, where they name none of it, from the
// origin itself.
func (s *Signatures) key(ctx context.Context, origin string, name id.KeyID) (id.SigningKey, error) {
	if algorithm, _ := name.Parse(); algorithm != id.KeyAlgorithmEd25519 || len(name) > maxKeyID {
		return "", ErrUnknownKey
	}
	if pinned := s.policy.signingKeys(origin); len(pinned) > 0 {
		key, ok := pinned[name]
		if !ok {
			return "", ErrUnknownKey
		}
		return key, nil
	}
	return s.keys.find(ctx, origin, name)
}

// flatObject tells whether the text is one JSON object that is not nested
// deeply, and nothing else.
func flatObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return !matrixrtc.TooDeep(text) && json.Valid(text) && text[0] == '{'
}

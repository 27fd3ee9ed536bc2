package homeserver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// questionTimeout bounds one question. A homeserver on the same machine
	// answers in a millisecond; one that needs longer than this is down.
	questionTimeout = 5 * time.Second
	// maxAnswer bounds the body of an answer.
	maxAnswer = 64 << 10
	// maxMembers bounds the list of a room's members: some tens of thousands.
	maxMembers = 8 << 20
	// maxConns bounds the connections, and with them the questions at one time.
	maxConns = 32
	// maxQuestions bounds the questions that are under way or wait for a
	// connection. More are refused at once: a homeserver that is this far
	// behind does not catch up within the deadline.
	maxQuestions = 512
)

// errBusy is returned when too many questions wait already.
var errBusy = errors.New("too many questions to the homeserver wait already")

// Refusal is an answer of the homeserver other than the one asked for.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	// Code is the Matrix error code; empty when the answer held none.
	Code string
}

// Error implements error. It repeats nothing of the answer but its code.
func (r *Refusal) Error() string {
	if r.Code == "" {
		return fmt.Sprintf("status %d", r.Status)
	}
	return fmt.Sprintf("status %d %s", r.Status, r.Code)
}

// Withheld tells an answer that keeps what was asked for to itself from one that
// shows that something is broken: a proxy that knows of no homeserver answers
// 404 as well, in words of its own.
func (r *Refusal) Withheld() bool { return r.Code == "M_FORBIDDEN" || r.Code == "M_NOT_FOUND" }

// Client speaks to our homeserver's client-server API. It keeps connections,
// has a deadline for each question and reads no more than it must.
type Client struct {
	base  string
	token string
	// transport is asked itself: it follows no redirect, so that the token goes
	// to the address that the operator wrote and nowhere else.
	transport http.RoundTripper
	questions chan struct{} // holds a value for each question under way
	metrics   metrics
}

// Options say where the homeserver is and who asks; URL is required.
type Options struct {
	// URL is the base of its client-server API, http or https.
	URL string
	// Token is the as_token of our registration; without one only Check is of
	// use.
	Token string
	// Transport replaces the network; nil is one with keep-alive.
	Transport http.RoundTripper
	// Registerer takes the metrics; nil leaves them unregistered.
	Registerer prometheus.Registerer
}

// NewClient returns a Client. It connects to nothing yet. Close lets go of its
// connections.
func NewClient(o Options) *Client {
	transport := o.Transport
	if transport == nil {
		transport = &http.Transport{
			DialContext:            (&net.Dialer{Timeout: questionTimeout}).DialContext,
			MaxIdleConnsPerHost:    maxConns,
			MaxConnsPerHost:        maxConns,
			MaxResponseHeaderBytes: 32 << 10,
			// Less than the two minutes that Synapse keeps a connection: when it
			// closes first, a question can be lost to it.
			IdleConnTimeout: 60 * time.Second,
			// The limit on bodies counts what arrives.
			DisableCompression: true,
		}
	}
	return &Client{
		base:      strings.TrimRight(o.URL, "/"),
		token:     o.Token,
		transport: transport,
		questions: make(chan struct{}, maxQuestions),
		metrics:   newMetrics(o.Registerer),
	}
}

// Close lets go of the connections that no question uses.
func (c *Client) Close() { (&http.Client{Transport: c.transport}).CloseIdleConnections() }

// question is one request.
type question struct {
	name   string // on the metric
	method string
	path   string // escaped
	query  url.Values
	body   any // sent as JSON, unless nil
	limit  int64
	// open: it is answered to everybody. A token that the homeserver does not
	// know would be refused all the same.
	open bool
	// timeout, unless it is zero, stands for questionTimeout.
	timeout time.Duration
}

// ask puts the question and reads the answer into a value. Its errors are a
// [Refusal], or why there was no answer; in none stands the address, which
// holds names of rooms and users.
func (c *Client) ask(ctx context.Context, q question, into any) error {
	select {
	case c.questions <- struct{}{}:
		defer func() { <-c.questions }()
	default:
		return errBusy
	}
	started := time.Now()
	err := c.exchange(ctx, q, into)
	c.metrics.observe(q.name, err, time.Since(started))
	return err
}

func (c *Client) exchange(ctx context.Context, q question, into any) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(q.timeout, questionTimeout))
	defer cancel()
	request, err := c.request(ctx, q)
	if err != nil {
		return err
	}
	answer, err := c.transport.RoundTrip(request)
	if err != nil {
		return plain(err)
	}
	defer answer.Body.Close()
	limit := q.limit
	if limit == 0 {
		limit = maxAnswer
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case err != nil:
		return plain(err)
	case int64(len(body)) > limit:
		return errors.New("its answer is too large")
	case answer.StatusCode != http.StatusOK:
		return &Refusal{answer.StatusCode, errcode(body)}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errors.New("its answer is not the JSON expected")
	}
	return nil
}

func (c *Client) request(ctx context.Context, q question) (*http.Request, error) {
	var body io.Reader
	if q.body != nil {
		encoded, err := json.Marshal(q.body)
		if err != nil {
			return nil, fmt.Errorf("encode the question: %w", err)
		}
		body = bytes.NewReader(encoded)
	}
	address := c.base + q.path
	if len(q.query) > 0 {
		address += "?" + q.query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, q.method, address, body)
	if err != nil {
		return nil, errors.New("the address cannot be written")
	}
	if c.token != "" && !q.open {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "Passerelle")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, nil
}

// plain says in words what a deadline that has passed means.
func plain(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it gave no answer in time")
	}
	return err
}

// errcode reads the Matrix error code of an answer, if it looks like one.
func errcode(body []byte) string {
	var e struct {
		Code string `json:"errcode"`
	}
	if json.Unmarshal(body, &e) != nil || len(e.Code) > 64 || strings.ContainsFunc(e.Code, func(r rune) bool {
		return r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'A' || r > 'Z')
	}) {
		return ""
	}
	return e.Code
}

// refused tells whether the error is an answer with that status, and that code
// unless it is empty.
func refused(err error, status int, code string) bool {
	r, ok := errors.AsType[*Refusal](err)
	return ok && r.Status == status && (code == "" || r.Code == code)
}

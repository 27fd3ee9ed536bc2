package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Users and rooms that the requests are spread over.
const (
	users = 5000
	rooms = 1000
)

// result is what one round measured.
type result struct {
	requests  int
	wall, cpu time.Duration // cpu of the process under test
	latencies []time.Duration
}

// percentile is in milliseconds.
func (r result) percentile(p float64) float64 {
	return r.latencies[min(int(p*float64(len(r.latencies))), len(r.latencies)-1)].Seconds() * 1000
}

// cpuMS is the processor time of one request, in milliseconds.
func (r result) cpuMS() float64 { return r.cpu.Seconds() * 1000 / float64(r.requests) }

// load asks for tokens on as many connections, each waiting for its answer
// before it asks again, as long as more says so. Any answer but 200 is an
// error.
func load(ctx context.Context, p *process, world *stubs, route string, connections int, more func(started time.Time, n int) bool) (result, error) {
	var number atomic.Int64
	collected := make([][]time.Duration, connections)
	failures := make([]error, connections)
	before, err := p.cpu()
	if err != nil {
		return result{}, err
	}
	started := time.Now()
	var asking sync.WaitGroup
	for c := range connections {
		asking.Go(func() {
			var client *asker
			if client, failures[c] = dial(p.at(route)); failures[c] != nil {
				return
			}
			defer client.close()
			for ctx.Err() == nil && failures[c] == nil {
				n := int(number.Add(1))
				if !more(started, n) {
					return
				}
				header, body := world.request(p, route, n)
				began := time.Now()
				failures[c] = client.post(route, header, body)
				collected[c] = append(collected[c], time.Since(began))
			}
		})
	}
	asking.Wait()
	r := result{wall: time.Since(started)}
	after, err := p.cpu()
	if err != nil {
		return result{}, err
	}
	r.cpu = after - before
	for c := range connections {
		if failures[c] != nil {
			return result{}, failures[c]
		}
		r.latencies = append(r.latencies, collected[c]...)
	}
	slices.Sort(r.latencies)
	r.requests = len(r.latencies)
	if r.requests == 0 {
		return result{}, fmt.Errorf("%s: nothing was asked", route)
	}
	return r, ctx.Err()
}

// answer is the body of a good answer.
func answer(ctx context.Context, client *http.Client, address string, body []byte, header http.Header) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header = header
	return do(client, request)
}

// do is the body of a good answer.
func do(client *http.Client, request *http.Request) ([]byte, error) {
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", request.URL, answer.StatusCode, text)
	}
	return text, err
}

// token is a token of the n-th user for a room of that name.
func (s *stubs) token(ctx context.Context, p *process, room string, n int) (string, error) {
	text, err := answer(ctx, http.DefaultClient, p.address+"/get_token", s.standalone(room, strconv.Itoa(n), fmt.Sprintf("u%d-%d", n, s.asked.Add(1))), http.Header{})
	if err != nil {
		return "", err
	}
	var got struct {
		JWT string `json:"jwt"`
	}
	err = json.Unmarshal(text, &got)
	return got.JWT, err
}

// request is the n-th one, with the lines that it adds to the header.
func (s *stubs) request(p *process, route string, n int) (header string, body []byte) {
	if route == proxiedRoute {
		return s.proxiedRequest(p)
	}
	return "Origin: https://call.bench\r\n", s.body(route, n)
}

// body is that of the n-th request: each has a fresh OpenID token, and its leave, if
// the route is for leaves, is one of its own.
func (s *stubs) body(route string, n int) []byte {
	user, room, serial := strconv.Itoa(n%users), strconv.Itoa(n%rooms), s.asked.Add(1)
	token := fmt.Sprintf("u%s-%d", user, serial)
	switch route {
	case "/sfu/get":
		return fmt.Appendf(nil, `{"room":"!r%s:bench","device_id":"DEVICE","openid_token":{"access_token":%q,"token_type":"Bearer","matrix_server_name":%q,"expires_in":3600}}`,
			room, token, s.name)
	case "/delegate_delayed_leave":
		leave := fmt.Appendf(nil, `{"delay_id":"leave%d","delay_timeout":3600000,`, serial)
		return append(leave, s.standalone("r"+room, user, token)[1:]...)
	}
	return s.standalone("r"+room, user, token)
}

// standalone is the body of a request to /get_token.
func (s *stubs) standalone(room, user, token string) []byte {
	return fmt.Appendf(nil, `{"room_id":"!%s:bench","slot_id":"m.call#ROOM","openid_token":{"access_token":%q,"token_type":"Bearer","matrix_server_name":%q,"expires_in":3600},"member":{"id":"member","claimed_user_id":"@u%s:%s","claimed_device_id":"DEVICE"}}`,
		room, token, s.name, user, s.name)
}

package app_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/federation/federationtest"
)

// Whatever a homeserver does, by either route its users get no token, no row
// and no room of the SFU, in less than 10 s, and all in the same words.
func TestHostileHomeservers(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	other := federationtest.New(t, federationtest.GoodCertificate)
	answers := map[string]bool{}
	for name, misbehave := range map[string]federationtest.Misbehaviour{
		"a user of another server": federationtest.Body(`{"sub":"@ana:victim.example"}`),
		"no user":                  federationtest.Body(`{}`),
		"a huge user":              federationtest.Body(`{"sub":"@` + strings.Repeat("a", 60<<10) + `:{name}"}`),
		"an endless answer":        federationtest.Endless,
		"a bomb":                   federationtest.GzipBomb,
		"huge headers":             federationtest.HugeHeaders,
		"headers that drip":        federationtest.DripHeaders,
		"an answer that drips":     federationtest.Drip,
		"no answer":                federationtest.Hang,
		"an endless redirect":      federationtest.Redirect(""),
		"a redirect to loopback":   federationtest.Redirect("https://" + other.Name() + "/_matrix/federation/v1/openid/userinfo"),
		"a redirect to metadata":   federationtest.Redirect("http://169.254.169.254/latest/meta-data/"),
		"the token in the answer":  federationtest.Raw("HTTP/1.1 {token} OK\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			for path, body := range map[string]string{"/sfu/get": p.legacy(), "/get_token": p.standalone()} {
				// Well in between: a server that fails again and again is not asked.
				p.home.Misbehave(nil)
				_, _ = do(t, http.MethodPost, p.public+path, strings.Replace(body, `"access_token":"`, `"access_token":"un`, 1), nil)
				p.home.Misbehave(misbehave)
				began := time.Now()
				answer, text := do(t, http.MethodPost, p.public+path, body, nil)
				require.Equal(t, http.StatusUnauthorized, answer.StatusCode, text)
				require.Less(t, time.Since(began), 10*time.Second)
				answers[text] = true
			}
		})
	}
	require.Len(t, answers, 1, "what was wrong is nothing a stranger should learn")
	require.Zero(t, other.Connections())
	require.Zero(t, p.rows(t))
	require.Zero(t, p.made.Load())
}

// A token that another homeserver made, or that was used for another call, is
// as good as none.
func TestStolenTokens(t *testing.T) {
	p := startProgram(t)
	other := federationtest.New(t, federationtest.GoodCertificate)
	foreign := strings.Replace(p.legacy(), `"access_token":"`, `"access_token":"`+other.Issue("ana")+`","x":"`, 1)
	_, refusal := do(t, http.MethodPost, p.public+"/sfu/get", foreign, nil)
	require.Contains(t, refusal, "M_UNAUTHORIZED")

	stolen := p.legacy()
	for range 3 {
		answer, body := do(t, http.MethodPost, p.public+"/sfu/get", stolen, nil)
		require.Equal(t, http.StatusOK, answer.StatusCode, body)
	}
	before := p.rows(t)
	for _, change := range [][2]string{{"!r:hs", "!other:hs"}, {`"DEV"`, `"EVIL"`}} {
		answer, body := do(t, http.MethodPost, p.public+"/sfu/get", strings.Replace(stolen, change[0], change[1], 1), nil)
		require.Equal(t, http.StatusUnauthorized, answer.StatusCode)
		require.Equal(t, refusal, body)
	}
	require.Equal(t, before, p.rows(t))
}

// A room that nobody knows and one in which a call runs look the same to
// whoever may not know.
func TestNoOracle(t *testing.T) {
	p := startProgram(t)
	_, _ = do(t, http.MethodPost, p.public+"/sfu/get", p.legacy(), nil)
	ask := func(room, server, token string) string {
		answer, body := do(t, http.MethodPost, p.public+"/sfu/get", fmt.Sprintf(
			`{"room":%q,"device_id":"DEV","openid_token":{"access_token":%q,"matrix_server_name":%q}}`, room, token, server), nil)
		for _, volatile := range []string{"Date", "Content-Length"} {
			answer.Header.Del(volatile)
		}
		return fmt.Sprint(answer.StatusCode, answer.Header, body)
	}
	require.Equal(t, ask("!r:hs", "evil.example", "x"), ask("!unknown:hs", "evil.example", "x"))
	require.Equal(t, ask("!r:hs", p.home.Name(), "x"), ask("!unknown:hs", p.home.Name(), "x"))
	require.Equal(t, ask("!r:hs", p.home.Name(), "x"), ask("!r:hs", "127.0.0.1:1", "x"),
		"a server that is down is not told from one that says no")
}

// endless is a body of so many bytes that are the beginning of JSON.
type endless struct {
	opening string
	size    int
	read    atomic.Int64 // also while the request is still being sent
}

func (e *endless) Read(b []byte) (int, error) {
	read := int(e.read.Load())
	if read == e.size {
		return 0, io.EOF
	}
	n := min(len(b), e.size-read)
	for i := range n {
		b[i] = e.opening[(read+i)%len(e.opening)]
	}
	e.read.Add(int64(n))
	return n, nil
}

// A body without end is read up to the limit and no further, however deep it
// is, whatever it says it is, and by every route.
func TestHugeBodies(t *testing.T) {
	p := startProgram(t)
	const size = 100 << 20
	for _, path := range []string{"/sfu/get", "/get_token"} {
		for name, opening := range map[string]string{"arrays": "[", "objects": `{"a":`, "spaces": " ", "zeros": "\x00", "a number": "1", "a text": `"`} {
			for _, kind := range []string{"application/json", "text/plain", "multipart/form-data; boundary=" + strings.Repeat("x", 1000), ""} {
				if name != "arrays" && kind != "application/json" {
					continue
				}
				body := &endless{opening: opening, size: size}
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.public+path, io.NopCloser(body))
				require.NoError(t, err)
				request.Header.Set("Content-Type", kind)
				answer, err := http.DefaultTransport.RoundTrip(request)
				if err == nil {
					// Else the connection broke while the rest was being sent.
					require.Equal(t, http.StatusRequestEntityTooLarge, answer.StatusCode, name)
					require.NoError(t, answer.Body.Close())
				}
				require.Less(t, body.read.Load(), int64(16<<20), "%s: it is not taken in to be thrown away", name)
			}
		}
	}
	for depth, status := range map[int]int{9_000: http.StatusBadRequest, 32_000: http.StatusBadRequest, 60_000: http.StatusRequestEntityTooLarge, 100_000: http.StatusRequestEntityTooLarge} {
		for _, path := range []string{"/sfu/get", "/get_token"} {
			answer, _ := do(t, http.MethodPost, p.public+path, strings.Repeat("[", depth), nil)
			require.Equal(t, status, answer.StatusCode)
		}
	}
	require.Zero(t, p.rows(t))
	require.Zero(t, p.home.Requests())
}

// Clients that send a byte now and then, in great number, hold nobody up, and
// the server lets go of them by itself.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	p := startProgram(t)
	const clients = 300
	var slow []net.Conn
	for i := range clients {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.PublicAddr().String())
		require.NoError(t, err)
		defer conn.Close()
		begin := "POST /sfu/get HTTP/1.1\r\nHost: x\r\nContent-Le"
		if i%2 == 0 { // the head is whole, the body is not
			begin = "POST /sfu/get HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n{"
		}
		_, err = io.WriteString(conn, begin)
		require.NoError(t, err)
		slow = append(slow, conn)
	}
	for range 20 {
		answer, body := do(t, http.MethodPost, p.public+"/sfu/get", p.legacy(), nil)
		require.Equal(t, http.StatusOK, answer.StatusCode, body)
	}
	_, metrics := do(t, http.MethodGet, p.private+"/metrics", "", nil)
	require.Contains(t, metrics, "passerelle_focus_token_requests_in_work 0\n", "what is not sent is not in work")

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	deadline, _ := ctx.Deadline()
	for _, conn := range slow {
		require.NoError(t, conn.SetDeadline(deadline))
		if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			require.GreaterOrEqual(t, answer.StatusCode, 400)
			require.NoError(t, answer.Body.Close())
		}
		_, err := conn.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
	}
}

// Heads of requests are bounded too.
func TestHugeHeads(t *testing.T) {
	p := startProgram(t)
	for name, head := range map[string]string{
		"one header":   "X-Huge: " + strings.Repeat("x", 1<<20) + "\r\n",
		"many headers": strings.Repeat("X-Many: x\r\n", 100_000),
		"many proxies": "X-Forwarded-For: " + strings.Repeat("1.1.1.1,", 100_000) + "\r\n",
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.PublicAddr().String())
		require.NoError(t, err)
		defer conn.Close()
		// The server may close before all is sent.
		_, _ = io.Copy(conn, bytes.NewReader([]byte("POST /sfu/get HTTP/1.1\r\nHost: x\r\n"+head+"\r\n")))
		if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, answer.StatusCode, name)
			require.NoError(t, answer.Body.Close())
		}
	}
	answer, body := do(t, http.MethodPost, p.public+"/sfu/get", p.legacy(), nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
}

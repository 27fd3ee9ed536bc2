package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/stretchr/testify/require"

	"passerelle/federation/federationtest"
)

const (
	dropInKey    = "matrix-rtc"
	dropInSecret = "kq3Yt8Zr1Lw6Xn0Vb5Mc9Hs2Jd7Fg4Pa"
)

// dropIn is one Passerelle in the place of an lk-jwt-service: the binary,
// without arguments, with that service's variables and nothing else, as a user
// who may write nowhere.
type dropIn struct {
	t       *testing.T
	address string
	home    *delayedEvents
	sfu     *fakeSFU
	env     map[string]string
	process *exec.Cmd
	said    *output
}

// output is what a process wrote so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// newDropIn is an installation with fakes around it. Its users have full
// access. Each variable is NAME=value; an empty value takes it away.
func newDropIn(t *testing.T, variables ...string) *dropIn {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	d := &dropIn{
		t:       t,
		address: fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0]),
		home:    newDelayedEvents(t, federationtest.GoodCertificate),
		sfu:     newFakeSFU(t),
	}
	d.env = map[string]string{
		"LIVEKIT_URL":                     d.sfu.url(),
		"LIVEKIT_KEY":                     dropInKey,
		"LIVEKIT_SECRET":                  dropInSecret,
		"LIVEKIT_FULL_ACCESS_HOMESERVERS": d.home.Name(),
		"LIVEKIT_JWT_BIND":                d.address,
		"SSL_CERT_FILE":                   readable(t, d.home.CAFile()),
	}
	d.set(variables...)
	return d
}

func (d *dropIn) set(variables ...string) {
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		d.env[name] = value
		if value == "" {
			delete(d.env, name)
		}
	}
}

// readable is a copy of a file that every user can read.
func readable(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	copied := filepath.Join(openFolder(t), filepath.Base(file))
	require.NoError(t, os.WriteFile(copied, data, 0o644))
	return copied
}

// openFolder is a folder that every user can read, unlike t.TempDir.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "passerelle-dropin-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// launch starts the process and does not wait for anything.
func (d *dropIn) launch() {
	d.t.Helper()
	self, err := os.Executable()
	require.NoError(d.t, err)
	program := filepath.Join(openFolder(d.t), "passerelle")
	require.NoError(d.t, os.Link(self, program))
	require.NoError(d.t, os.Chmod(program, 0o755))
	d.said = &output{}
	d.process = &exec.Cmd{
		Path: program, Args: []string{"passerelle"}, Dir: "/", Env: []string{"TMPDIR=/nonexistent"},
		Stdout: d.said, Stderr: d.said,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM},
	}
	if os.Geteuid() == 0 {
		d.process.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	for name, value := range maps.All(d.env) {
		d.process.Env = append(d.process.Env, name+"="+value)
	}
	require.NoError(d.t, d.process.Start())
	process, said := d.process, d.said
	d.t.Cleanup(func() {
		if process.ProcessState == nil {
			_ = process.Process.Kill()
			_ = process.Wait()
		}
		if d.t.Failed() {
			d.t.Logf("%s said:\n%s", d.address, said)
		}
	})
}

// start launches it and returns when it is healthy.
func (d *dropIn) start() *dropIn {
	d.t.Helper()
	d.launch()
	require.Eventually(d.t, d.healthy, 20*time.Second, 10*time.Millisecond, "no answer from /healthz")
	return d
}

func (d *dropIn) healthy() bool {
	answer, err := http.Get("http://" + d.address + "/healthz")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (d *dropIn) kill() {
	d.t.Helper()
	require.NoError(d.t, d.process.Process.Kill())
	_ = d.process.Wait()
}

// exits waits for the end of a process that should not go on.
func (d *dropIn) exits() (code int) {
	d.t.Helper()
	ended := make(chan struct{})
	go func() { _ = d.process.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = d.process.Process.Kill()
		<-ended
		require.Fail(d.t, "it did not end")
	}
	return d.process.ProcessState.ExitCode()
}

type object = map[string]any

// reply is an answer to a request.
type reply struct {
	status int
	header http.Header
	raw    string
	body   object
}

func (d *dropIn) send(method, path string, body any) reply {
	d.t.Helper()
	text, isText := body.(string)
	if !isText && body != nil {
		encoded, err := json.Marshal(body)
		require.NoError(d.t, err)
		text = string(encoded)
	}
	request, err := http.NewRequest(method, "http://"+d.address+path, strings.NewReader(text))
	require.NoError(d.t, err)
	return d.do(request)
}

func (d *dropIn) do(request *http.Request) reply {
	d.t.Helper()
	answer, err := (&http.Client{Timeout: 20 * time.Second}).Do(request)
	require.NoError(d.t, err)
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	require.NoError(d.t, err)
	r := reply{status: answer.StatusCode, header: answer.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &r.body)
	return r
}

func (d *dropIn) post(path string, body any) reply {
	d.t.Helper()
	return d.send(http.MethodPost, path, body)
}

func openID(home *delayedEvents, user string) object {
	return object{"access_token": home.Issue(user), "matrix_server_name": home.Name(), "token_type": "Bearer", "expires_in": 3600}
}

// legacy is the body of POST /sfu/get.
func (d *dropIn) legacy(user string, more ...object) object {
	return merged(object{"room": "!room:example.org", "openid_token": openID(d.home, user), "device_id": "DEV"}, more)
}

// standalone is the body of POST /get_token and /delegate_delayed_leave.
func (d *dropIn) standalone(user string, more ...object) object {
	return standaloneOf(d.home, user, more...)
}

func standaloneOf(home *delayedEvents, user string, more ...object) object {
	return merged(object{
		"room_id": "!room:example.org", "slot_id": "m.call#ROOM", "openid_token": openID(home, user),
		"member": object{"id": "member-" + user, "claimed_user_id": home.User(user), "claimed_device_id": "DEV"},
	}, more)
}

func merged(body object, more []object) object {
	for _, m := range more {
		maps.Copy(body, m)
	}
	return body
}

func delay(id string, timeout time.Duration) object {
	return object{"delay_id": id, "delay_timeout": timeout.Milliseconds()}
}

// hashed is the LiveKit name of some strings, computed without our code.
func hashed(parts ...string) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(parts)
	sum := sha256.Sum256(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return base64.RawStdEncoding.EncodeToString(sum[:])
}

var roomAlias = hashed("!room:example.org", "m.call#ROOM")

func memberOf(home *delayedEvents, user string) string {
	return hashed(home.User(user), "DEV", "member-"+user)
}

// delegate delegates the leave of a user and requires that it was taken.
func (d *dropIn) delegate(user, id string, timeout time.Duration) {
	d.t.Helper()
	answer := d.post("/delegate_delayed_leave", d.standalone(user, delay(id, timeout)))
	require.Equal(d.t, http.StatusOK, answer.status, answer.raw)
	require.Equal(d.t, "{}", answer.raw)
}

// webhook reports an event as LiveKit does.
func (d *dropIn) webhook(event object) reply {
	d.t.Helper()
	return d.webhookSigned(event, dropInKey, dropInSecret, "application/webhook+json", func(r *http.Request) {})
}

func (d *dropIn) webhookSigned(event object, key, secret, contentType string, change func(*http.Request)) reply {
	d.t.Helper()
	body, err := json.Marshal(event)
	require.NoError(d.t, err)
	sum := sha256.Sum256(body)
	token, err := auth.NewAccessToken(key, secret).SetValidFor(5 * time.Minute).
		SetSha256(base64.StdEncoding.EncodeToString(sum[:])).ToJWT()
	require.NoError(d.t, err)
	request, err := http.NewRequest(http.MethodPost, "http://"+d.address+"/sfu_webhook", bytes.NewReader(body))
	require.NoError(d.t, err)
	request.Header.Set("Authorization", token)
	request.Header.Set("Content-Type", contentType)
	change(request)
	return d.do(request)
}

// participantEvent is an event with the least that LiveKit could say.
func participantEvent(name, identity, reason string) object {
	participant := object{"identity": identity}
	if reason != "" {
		participant["disconnectReason"] = reason
	}
	return object{"event": name, "id": "EV_" + rand.Text(), "room": object{"name": roomAlias}, "participant": participant}
}

func (d *dropIn) event(name, user, reason string) {
	d.t.Helper()
	require.Equal(d.t, http.StatusOK, d.webhook(participantEvent(name, memberOf(d.home, user), reason)).status)
}

// claims are those of a token, read as Element Call reads them.
func (d *dropIn) claims(jwt string) object {
	d.t.Helper()
	parts := strings.Split(jwt, ".")
	require.Len(d.t, parts, 3)
	require.NotContains(d.t, parts[1], "-")
	require.NotContains(d.t, parts[1], "_")
	raw, err := base64.RawStdEncoding.DecodeString(parts[1])
	require.NoError(d.t, err)
	var claims object
	require.NoError(d.t, json.Unmarshal(raw, &claims))
	return claims
}

// called waits for the nth call of an action on a delayed event.
func (d *dropIn) called(id, action string, n int, within time.Duration) delayedCall {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return len(d.home.seen(id, action)) >= n }, within, 5*time.Millisecond,
		"%s of %s was called %d times and not %d", action, id, len(d.home.seen(id, action)), n)
	return d.home.seen(id, action)[n-1]
}

// silent requires that an action is not called for a while.
func (d *dropIn) silent(id, action string, during time.Duration) {
	d.t.Helper()
	d.stays(id, action, 0, during)
}

// stays requires that an action was called so often, and is not again for a
// while.
func (d *dropIn) stays(id, action string, n int, during time.Duration) {
	d.t.Helper()
	require.Never(d.t, func() bool { return len(d.home.seen(id, action)) != n }, during, 20*time.Millisecond,
		"%s of %s was not called %d times", action, id, n)
}

func refusesConnections(address string) bool {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}

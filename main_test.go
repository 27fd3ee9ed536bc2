package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"passerelle/federation/federationtest"
)

// The test binary is passerelle too: as a command of the scripts, and where a
// test starts it under that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "passerelle" || len(os.Args) > 1 && os.Args[1] == "sfu" {
		os.Exit(run(os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){
		"passerelle": func() { os.Exit(run(os.Args[1:])) },
	})
}

func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "", // writes what was said into the scripts
	})
}

// instance is one running Passerelle, as an operator runs it: a process with a
// configuration file, and the SFU as its child.
type instance struct {
	t       *testing.T
	config  string
	dir     string
	public  string
	private string
	sfuPort int
	home    *federationtest.Homeserver

	process *exec.Cmd
	said    *bytes.Buffer
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	return newInstanceWith(t, func(i *instance, port, udp int) string {
		return fmt.Sprintf("{embedded: {port: %d, udp_port: %d, tcp_port: 0, node_ip: 127.0.0.1, loopback: true, orphan_timeout: 20s}}", port, udp)
	})
}

// newInstanceWith is newInstance with another livekit section.
func newInstanceWith(t *testing.T, livekit func(i *instance, port, udp int) string) *instance {
	t.Helper()
	i := &instance{t: t, dir: t.TempDir(), home: federationtest.New(t, federationtest.GoodCertificate)}
	i.config = filepath.Join(i.dir, "config.yaml")
	ports := freePorts(t, 4)
	i.public, i.private = fmt.Sprintf("127.0.0.1:%d", ports[0]), fmt.Sprintf("127.0.0.1:%d", ports[1])
	i.sfuPort = ports[2]
	require.NoError(t, os.WriteFile(i.config, fmt.Appendf(nil, `
server: {listen: %q, private_listen: %q, public_url: "http://%[1]s", data_dir: %[3]q, stop_timeout: 10s}
log: {level: debug, format: json}
database: {path: %[4]q}
livekit: %[5]s
focus: {membership: unverified}
federation:
  allow_networks: ["127.0.0.0/8"]
  ca_files: [%[6]q]
  rules: [{server: %[7]q, access: create}]
`, i.public, i.private, filepath.Join(i.dir, "data"), filepath.Join(i.dir, "p.db"), livekit(i, i.sfuPort, ports[3]), i.home.CAFile(), i.home.Name()), 0o600))
	return i
}

// start starts the process and returns when it is ready for calls.
func (i *instance) start() {
	i.t.Helper()
	self, err := os.Executable()
	require.NoError(i.t, err)
	i.said = &bytes.Buffer{}
	i.process = exec.Command(self, "-config", i.config)
	i.process.Args[0] = "passerelle"
	i.process.Stderr = i.said
	i.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	require.NoError(i.t, i.process.Start())
	process := i.process
	i.t.Cleanup(func() { i.end(process) })
	require.Eventually(i.t, func() bool {
		answer, err := http.Get("http://" + i.private + "/readyz")
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	}, patience, 20*time.Millisecond, "not ready")
}

// end stops a process in order; with it goes the SFU.
func (i *instance) end(process *exec.Cmd) {
	if process.ProcessState != nil {
		return
	}
	_ = process.Process.Signal(syscall.SIGTERM)
	_ = process.Wait()
	if i.t.Failed() {
		i.t.Logf("what Passerelle said:\n%s", i.said)
	}
}

// kill is kill -9.
func (i *instance) kill() {
	i.t.Helper()
	require.NoError(i.t, i.process.Process.Kill())
	_ = i.process.Wait()
}

// sfu is the process ID of the SFU, asked of itself.
func (i *instance) sfu() int {
	i.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(i.dir, "data", "sfu.sock"))
	require.NoError(i.t, err)
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	require.NoError(i.t, err)
	var hello struct{ PID int }
	require.NoError(i.t, json.Unmarshal(line, &hello))
	return hello.PID
}

// token asks for a token as Element Call does.
func (i *instance) token(user string) (url, jwt string) {
	i.t.Helper()
	body := fmt.Sprintf(`{"room_id":"!r:hs","slot_id":"m.call#ROOM","openid_token":{"access_token":%q,"matrix_server_name":%q},
		"member":{"id":"m","claimed_user_id":%q,"claimed_device_id":"D"}}`, i.home.Issue(user), i.home.Name(), i.home.User(user))
	answer, err := http.Post("http://"+i.public+"/get_token", "application/json", strings.NewReader(body))
	require.NoError(i.t, err)
	defer answer.Body.Close()
	require.Equal(i.t, http.StatusOK, answer.StatusCode)
	var got struct{ URL, JWT string }
	require.NoError(i.t, json.NewDecoder(answer.Body).Decode(&got))
	return got.URL, got.JWT
}

// key is the key that the SFU of this instance knows.
func (i *instance) key() (id, secret string) {
	i.t.Helper()
	data, err := os.ReadFile(filepath.Join(i.dir, "data", "livekit.key"))
	require.NoError(i.t, err)
	id, secret, ok := strings.Cut(strings.TrimSpace(string(data)), ": ")
	require.True(i.t, ok)
	return id, secret
}

// freePorts are free for TCP and UDP. They lie below those that the kernel gives
// to whoever asks for any, so that nobody gets them before they are used.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	const lowest, kernels = 10_000, 32_768
	var ports []int
	for len(ports) < n {
		port := lowest + rand.N(kernels-lowest)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		if u, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			defer u.Close()
			ports = append(ports, port)
		}
	}
	return ports
}

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDropInStartsWithVariablesAlone(t *testing.T) {
	d := newDropIn(t).start()
	require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana")).status)
	require.Equal(t, []string{d.address}, listening(t, d.process.Process.Pid), "it listens there and nowhere else")
	require.Empty(t, children(t, d.process.Process.Pid))
	require.NoError(t, d.process.Process.Signal(os.Interrupt))
	require.Zero(t, d.exits(), "%s", d.said)
}

// listening are the TCP addresses on which a process listens.
func listening(t *testing.T, pid int) []string {
	t.Helper()
	sockets := map[string]bool{}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	require.NoError(t, err)
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			sockets[target] = true
		}
	}
	var found []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		require.NoError(t, err)
		for _, line := range strings.Split(string(data), "\n")[1:] {
			words := strings.Fields(line)
			if len(words) < 10 || !sockets["socket:["+words[9]+"]"] || table[:3] == "tcp" && words[3] != "0A" {
				continue
			}
			_, port, _ := strings.Cut(words[1], ":")
			number, err := strconv.ParseInt(port, 16, 32)
			require.NoError(t, err)
			host := words[1]
			if strings.HasPrefix(host, "0100007F:") {
				host = "127.0.0.1"
			}
			found = append(found, fmt.Sprintf("%s:%d", host, number))
		}
	}
	return found
}

func children(t *testing.T, pid int) string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	var all strings.Builder
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		require.NoError(t, err)
		all.Write(data)
	}
	return all.String()
}

func TestDropInsSideBySideShareNothing(t *testing.T) {
	one, other := newDropIn(t).start(), newDropIn(t).start()
	one.kill()
	require.Equal(t, http.StatusOK, other.post("/sfu/get", other.legacy("ana")).status)
	require.True(t, refusesConnections(one.address))
}

func TestDropInListensOnTheDeprecatedPort(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_JWT_BIND=")
	port := freePorts(t, 1)[0]
	d.set(fmt.Sprintf("LIVEKIT_JWT_PORT=%d", port))
	d.address = fmt.Sprintf("127.0.0.1:%d", port)
	d.start()
}

func TestDropInSaysAllThatIsWrongAndEnds(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_URL=", "LIVEKIT_KEY=", "LIVEKIT_CS_API_URL_OVERRIDES=nonsense", "LIVEKIT_JWT_PORT=1")
	d.launch()
	require.Equal(t, 1, d.exits())
	for _, name := range []string{"LIVEKIT_URL", "LIVEKIT_KEY", "LIVEKIT_CS_API_URL_OVERRIDES", "LIVEKIT_JWT_PORT"} {
		require.Contains(t, d.said.String(), name+": ")
	}
	require.NotContains(t, d.said.String(), dropInSecret)
}

func TestDropInHealth(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_URL=ws://127.0.0.1:1", "LIVEKIT_CS_API_URL_OVERRIDES=down.example=http://127.0.0.1:1").start()
	for method, status := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "OPTIONS": 405} {
		answer := d.send(method, "/healthz", nil)
		require.Equal(t, status, answer.status, method)
		require.Empty(t, answer.raw)
	}
}

// TestDropInTakesAnySecret: an installation that exists must start.
func TestDropInTakesAnySecret(t *testing.T) {
	for _, secret := range []string{"secret", "devkey-devkey-devkey-devkey-devkey"} {
		d := newDropIn(t, "LIVEKIT_SECRET="+secret).start()
		require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana")).status)
		require.Contains(t, d.said.String(), "anybody can make tokens here")
		require.NotContains(t, strings.ReplaceAll(d.said.String(), "the secret of", ""), secret+`"`)
		event := participantEvent("participant_joined", "somebody", "")
		require.Equal(t, http.StatusOK, d.webhookSigned(event, dropInKey, secret, "application/webhook+json", func(*http.Request) {}).status)
	}
}

func TestDropInReadsSecretsFromFiles(t *testing.T) {
	folder := openFolder(t)
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	for _, variables := range [][]string{
		{"LIVEKIT_KEY=", "LIVEKIT_SECRET=", "LIVEKIT_KEY_FROM_FILE=" + file("key", "one\n"), "LIVEKIT_SECRET_FROM_FILE=" + file("secret", dropInSecret+"\n")},
		{"LIVEKIT_KEY_FILE=" + file("both", "one: "+dropInSecret+"\n")},
	} {
		d := newDropIn(t, variables...).start()
		answer := d.post("/sfu/get", d.legacy("ana"))
		require.Equal(t, http.StatusOK, answer.status, answer.raw)
		require.Equal(t, "one", d.claims(answer.body["jwt"].(string))["iss"])
	}
}

// TestDropInSaysOnceWhatCannotBeChecked: one warning, at the start.
func TestDropInSaysOnceWhatCannotBeChecked(t *testing.T) {
	d := newDropIn(t).start()
	d.post("/sfu/get", d.legacy("ana"))
	require.Len(t, regexp.MustCompile(`(?i)membership`).FindAllString(warnings(d), -1), 1, warnings(d))
}

func warnings(d *dropIn) string {
	var found []string
	for _, line := range strings.Split(d.said.String(), "\n") {
		if strings.Contains(line, `"level":"warn"`) {
			var read struct{ Message string }
			if err := json.Unmarshal([]byte(line), &read); err == nil {
				found = append(found, read.Message)
			}
		}
	}
	return strings.Join(found, "\n")
}

// TestDropInLogsNoPersonalData: at info, as it starts, no user and no room.
func TestDropInLogsNoPersonalData(t *testing.T) {
	d := newDropIn(t).start()
	d.delegate("ana", "leave-1", time.Minute)
	d.event("participant_joined", "ana", "")
	d.called("leave-1", "restart", 1, 5*time.Second)
	for _, personal := range []string{"@ana", "!room", "leave-1", dropInSecret} {
		require.NotContains(t, d.said.String(), personal)
	}
}

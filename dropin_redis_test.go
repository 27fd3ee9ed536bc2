package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/demo/parts/partstest"
)

// storedJob is a job in the hash as lk-jwt-service writes it.
func storedJob(home *delayedEvents, user, id string, timeout time.Duration, restarted time.Time) (field, value string) {
	identity := memberOf(home, user)
	encodedField, _ := json.Marshal([]string{roomAlias, identity})
	encoded, _ := json.Marshal(object{
		"Params": object{
			"DelayId": id, "DelayTimeout": timeout.Nanoseconds(), "ServerName": home.Name(),
			"LiveKitRoom": roomAlias, "LiveKitIdentity": identity,
		},
		"RestartedAt": restarted.UTC().Format(time.RFC3339Nano),
	})
	return string(encodedField), string(encoded)
}

// TestDropInRedisJobs: in the hash before the answer, and out of it soon after
// the end, in the format that lk-jwt-service reads.
func TestDropInRedisJobs(t *testing.T) {
	d, redis := newDropIn(t), newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	d.start()
	began := time.Now()
	d.delegate("ana", "leave", 18*time.Second)
	jobs := redis.jobs()
	require.Len(t, jobs, 1)
	field, _ := storedJob(d.home, "ana", "leave", 18*time.Second, began)
	require.Contains(t, jobs, field)
	var job struct {
		Params      object
		RestartedAt time.Time
	}
	require.NoError(t, json.Unmarshal([]byte(jobs[field]), &job))
	require.Equal(t, object{
		"DelayId": "leave", "DelayTimeout": float64(18e9), "ServerName": d.home.Name(),
		"LiveKitRoom": roomAlias, "LiveKitIdentity": memberOf(d.home, "ana"),
	}, job.Params)
	require.WithinDuration(t, began, job.RestartedAt, 2*time.Second)

	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 1, 2*time.Second)
	require.Eventually(t, func() bool { return redis.jobs()[field] != jobs[field] }, 2*time.Second, 5*time.Millisecond, "each restart is written")
	left := time.Now()
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("leave", "send", 1, 2*time.Second)
	require.Eventually(t, func() bool { return len(redis.jobs()) == 0 }, time.Second, 5*time.Millisecond)
	require.Less(t, time.Since(left), 2*time.Second)
	require.Empty(t, redis.unexpected())
}

// unexpected are the commands other than the four, and than those with which
// a connection begins.
func (r *fakeRedis) unexpected() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.commands), func(command string) bool {
		return slices.Contains([]string{"PING", "HSET", "HDEL", "HGETALL", "HELLO", "CLIENT"}, command)
	})
}

// TestDropInRedisTokenRoute: written before the token is given, too.
func TestDropInRedisTokenRoute(t *testing.T) {
	d, redis := newDropIn(t), newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	d.start()
	require.Equal(t, http.StatusOK, d.post("/sfu/get", d.legacy("ana", delay("leave", time.Minute))).status)
	require.Len(t, redis.jobs(), 1)
}

// TestDropInTakesJobsOver is rows 47 and 48, and the order of a start: jobs
// are read, the expired ones dropped without a word, the others resumed, and
// only then does it listen.
func TestDropInTakesJobsOver(t *testing.T) {
	d, redis := newDropIn(t), newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	redis.put(storedJob(d.home, "ana", "living", time.Minute, time.Now().Add(-10*time.Second)))
	redis.put(storedJob(d.home, "bo", "expired", 10*time.Second, time.Now().Add(-11*time.Second)))
	redis.gate = make(chan struct{})
	d.launch()
	require.Eventually(t, func() bool { return redis.saw("HGETALL") }, 10*time.Second, 5*time.Millisecond)
	require.Never(t, func() bool { return !refusesConnections(d.address) }, 300*time.Millisecond, 10*time.Millisecond, "not before the jobs are read")
	close(redis.gate)
	require.Eventually(t, d.healthy, 10*time.Second, time.Millisecond)
	jobs := redis.jobs()
	require.Len(t, jobs, 1, "the expired one is gone by then")
	d.event("participant_joined", "ana", "")
	d.called("living", "restart", 1, 2*time.Second)
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("living", "send", 1, 2*time.Second)
	require.Empty(t, d.home.seen("expired", "send"))
	require.Empty(t, d.home.seen("expired", "restart"))
}

func (r *fakeRedis) saw(command string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.commands, command)
}

// TestDropInSurvivesItsOwnDeath: SIGKILL in the middle of a call, and the next
// one goes on at once.
func TestDropInSurvivesItsOwnDeath(t *testing.T) {
	d, redis := newDropIn(t), newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	d.start()
	d.delegate("ana", "leave", time.Minute)
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 1, 2*time.Second)
	d.kill()
	d.sfu.set(roomAlias, memberOf(d.home, "ana"), true)
	d.start()
	d.called("leave", "restart", 2, 3*time.Second) // the SFU says that she is there
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("leave", "send", 1, 2*time.Second)
	require.Eventually(t, func() bool { return len(redis.jobs()) == 0 }, time.Second, 5*time.Millisecond)
}

// TestDropInLeavesJobsBehind: an orderly stop sends nothing and keeps the jobs,
// so that whoever comes next takes them over.
func TestDropInLeavesJobsBehind(t *testing.T) {
	d, redis := newDropIn(t), newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	d.start()
	d.delegate("ana", "leave", time.Minute)
	require.NoError(t, d.process.Process.Signal(syscall.SIGTERM))
	require.Zero(t, d.exits())
	require.Len(t, redis.jobs(), 1)
	require.Empty(t, d.home.seen("leave", "send"))
}

// TestDropInStrangeJobs: what cannot be read is no reason not to start, and
// not ours to delete.
func TestDropInStrangeJobs(t *testing.T) {
	d, redis := newDropIn(t), newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	redis.put("nonsense", "{}")
	redis.put(`["a","b"]`, "nonsense")
	field, value := storedJob(d.home, "ana", "leave", time.Minute, time.Now())
	redis.put(field, strings.Replace(value, `"Params":{`, `"Params":{"OwnerUserId":"@ana:x",`, 1))
	d.start()
	require.Len(t, redis.jobs(), 3)
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 1, 2*time.Second)
}

// TestDropInWithoutItsRedis: it does not start without, and goes on when it is
// lost.
func TestDropInWithoutItsRedis(t *testing.T) {
	d := newDropIn(t, "LIVEKIT_REDIS_URL=redis://user:hunter2@127.0.0.1:1")
	d.launch()
	require.Equal(t, 1, d.exits())
	require.Contains(t, d.said.String(), "LIVEKIT_REDIS_URL")
	require.NotContains(t, d.said.String(), "hunter2")

	redis := newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	d.start()
	redis.mu.Lock()
	redis.broken = true
	redis.mu.Unlock()
	d.delegate("ana", "leave", time.Minute)
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 1, 2*time.Second)
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("leave", "send", 1, 2*time.Second)
}

// TestDropInRealRedis is the same against the program itself, with a password.
func TestDropInRealRedis(t *testing.T) {
	program := partstest.Redis(t)
	port := freePorts(t, 1)[0]
	command := exec.Command(program, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(), "--requirepass", "word-of-redis")
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	address := fmt.Sprintf("127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)

	d := newDropIn(t, "LIVEKIT_REDIS_URL=redis://"+address+"/3", "LIVEKIT_REDIS_PASSWORD=word-of-redis").start()
	d.delegate("ana", "leave", time.Minute)
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 1, 2*time.Second)
	d.kill()
	d.start()
	d.event("participant_joined", "ana", "")
	d.called("leave", "restart", 2, 2*time.Second)
	d.event("participant_left", "ana", "CLIENT_INITIATED")
	d.called("leave", "send", 1, 2*time.Second)
	require.NotContains(t, d.said.String(), "word-of-redis")
}

// TestDropInRedisReplaced: what ends because another took its place does not
// take that one's field along.
func TestDropInRedisReplaced(t *testing.T) {
	d, redis := newDropIn(t), newFakeRedis(t)
	d.set("LIVEKIT_REDIS_URL=" + redis.url())
	d.start()
	for i := range 5 {
		d.delegate("ana", fmt.Sprint("leave-", i), time.Minute)
	}
	require.Never(t, func() bool { return len(redis.jobs()) != 1 }, 500*time.Millisecond, 5*time.Millisecond)
	for _, value := range redis.jobs() {
		require.Contains(t, value, `"DelayId":"leave-4"`)
	}
}

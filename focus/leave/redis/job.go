package redis

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"passerelle/focus/leave"
	"passerelle/focus/matrixrtc"
)

// job is the form that lk-jwt-service gives a job. Its field in the hash is a
// JSON array of the LiveKit room and the identity.
type job struct {
	Params      params
	RestartedAt time.Time
}

type params struct {
	DelayId         string        // these names are the format
	DelayTimeout    time.Duration // in nanoseconds
	ServerName      string
	LiveKitRoom     string
	LiveKitIdentity string
}

var errStrange = errors.New("not a job of lk-jwt-service")

func fieldOf(j leave.Job) string { return text([]string{string(j.Room), string(j.Identity)}) }

func encode(j leave.Job) string {
	return text(job{
		Params: params{
			DelayId:         j.DelayID.Reveal(),
			DelayTimeout:    j.Delay,
			ServerName:      j.Server,
			LiveKitRoom:     string(j.Room),
			LiveKitIdentity: string(j.Identity),
		},
		RestartedAt: j.RestartedAt.UTC(),
	})
}

// text is compact JSON in which <, > and & stand for themselves, as others
// write it.
func text(value any) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		// A year beyond 9999 is all that it could not write.
		panic(err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// decode reads a job, which begins its waiting anew. Whose it is stands in the
// field; what else stands in the value is not ours.
func decode(field, value string, now time.Time) (leave.Job, error) {
	var key []string
	var stored job
	if json.Unmarshal([]byte(field), &key) != nil || len(key) != 2 || json.Unmarshal([]byte(value), &stored) != nil {
		return leave.Job{}, errStrange
	}
	p := stored.Params
	if key[0] == "" || key[1] == "" || p.DelayId == "" || p.ServerName == "" || p.DelayTimeout <= 0 {
		return leave.Job{}, errStrange
	}
	// No clock is a day ahead, and none shows a year before Redis.
	if stored.RestartedAt.After(now.Add(24*time.Hour)) || stored.RestartedAt.Year() < 2000 {
		return leave.Job{}, errStrange
	}
	return leave.Job{
		ID: rand.Text(),
		DelayedLeave: matrixrtc.DelayedLeave{
			Room: matrixrtc.SFURoom(key[0]), Identity: matrixrtc.Identity(key[1]),
			Server: p.ServerName, DelayID: matrixrtc.DelayID(p.DelayId), Delay: p.DelayTimeout,
		},
		State:       leave.Waiting,
		CreatedAt:   now,
		RestartedAt: stored.RestartedAt,
	}, nil
}

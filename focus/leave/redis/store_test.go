package redis

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/leave"
	"passerelle/focus/matrixrtc"
)

// written is a job as lk-jwt-service writes it.
const (
	writtenField = `["F4oOprKFBq6JHqy2qYpq6UQQmR7hCvxkQQoUrd0+SbI","@a<b:example.com:DEV"]`
	writtenValue = `{"Params":{"DelayId":"syd_1","DelayTimeout":18000000000,"ServerName":"example.com",` +
		`"LiveKitRoom":"F4oOprKFBq6JHqy2qYpq6UQQmR7hCvxkQQoUrd0+SbI","LiveKitIdentity":"@a<b:example.com:DEV"},` +
		`"RestartedAt":"2026-07-20T10:11:12.13Z"}`
)

func TestTheFormOfJobs(t *testing.T) {
	now := time.Now()
	j, err := decode(writtenField, writtenValue, now)
	require.NoError(t, err)
	require.Equal(t, leave.Waiting, j.State)
	require.Equal(t, now, j.CreatedAt, "it begins its waiting anew")
	require.Equal(t, 18*time.Second, j.Delay)
	require.Equal(t, "syd_1", j.DelayID.Reveal())
	require.Equal(t, "example.com", j.Server)
	require.Equal(t, matrixrtc.Identity("@a<b:example.com:DEV"), j.Identity)
	require.Equal(t, time.Date(2026, 7, 20, 10, 11, 12, 130e6, time.UTC), j.RestartedAt)
	require.Equal(t, writtenField, fieldOf(j))
	require.Equal(t, writtenValue, encode(j))
}

func FuzzDecode(f *testing.F) {
	f.Add(writtenField, writtenValue)
	f.Add(`["a","b"]`, `{"Params":{"DelayTimeout":1e9,"OwnerUserId":"@a:b"},"RestartedAt":""}`)
	f.Fuzz(func(t *testing.T, field, value string) {
		j, err := decode(field, value, time.Now())
		if err != nil {
			return
		}
		again, err := decode(fieldOf(j), encode(j), j.CreatedAt)
		require.NoError(t, err)
		again.ID = j.ID
		require.True(t, again.RestartedAt.Equal(j.RestartedAt))
		again.RestartedAt = j.RestartedAt
		require.Equal(t, j, again)
	})
}

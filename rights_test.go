package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"passerelle/demo/intruder"
	"passerelle/migrations"
)

// rule writes another rule for the users of the instance's homeserver.
func (i *instance) rule(fields string) {
	i.t.Helper()
	text, err := os.ReadFile(i.config)
	require.NoError(i.t, err)
	text = regexp.MustCompile(`access: create.*}]`).ReplaceAll(text, []byte("access: create"+fields+"}]"))
	require.NoError(i.t, os.WriteFile(i.config, text, 0o600))
	require.NoError(i.t, i.process.Process.Signal(syscall.SIGHUP))
}

// metric is the value of a metric without labels.
func (i *instance) metric(name string) string {
	i.t.Helper()
	answer, err := http.Get("http://" + i.private + "/metrics")
	require.NoError(i.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(i.t, err)
	found := regexp.MustCompile(`(?m)^` + name + ` (.*)$`).FindSubmatch(text)
	require.NotNil(i.t, found, name)
	return string(found[1])
}

// show publishes a picture under the name of a source, and sends until the test
// ends.
func (p *participant) show(t *testing.T, source livekit.TrackSource) {
	t.Helper()
	track, err := lksdk.NewLocalSampleTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000})
	require.NoError(t, err)
	_, err = p.room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{Name: "picture", Source: source})
	require.NoError(t, err)
	// The head of a VP8 key frame of 16 x 16 (RFC 6386, 9.1).
	frame := append([]byte{0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00}, make([]byte, 200)...)
	p.sent.Go(func() {
		const pause = 40 * time.Millisecond
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		for {
			select {
			case <-p.done:
				return
			case <-ticker.C:
				_ = track.WriteSample(media.Sample{Data: frame, Duration: pause}, nil)
			}
		}
	})
}

// viewer counts what it receives.
type viewer struct {
	pictures, sounds atomic.Int64
	dark             chan time.Time // when a picture was over
}

func watch(t *testing.T, i *instance, user string) *viewer {
	t.Helper()
	v := &viewer{dark: make(chan time.Time, 10)}
	address, jwt := i.token(user)
	room, err := lksdk.ConnectToRoomWithToken(address, jwt, &lksdk.RoomCallback{ParticipantCallback: lksdk.ParticipantCallback{
		OnTrackSubscribed: func(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, _ *lksdk.RemoteParticipant) {
			counter := &v.sounds
			if track.Kind() == webrtc.RTPCodecTypeVideo {
				counter = &v.pictures
			}
			for {
				if _, _, err := track.ReadRTP(); err != nil {
					return
				}
				counter.Add(1)
			}
		},
		OnTrackUnpublished: func(p *lksdk.RemoteTrackPublication, _ *lksdk.RemoteParticipant) {
			if p.Kind() == lksdk.TrackKindVideo {
				v.dark <- time.Now()
			}
		},
	}})
	require.NoError(t, err)
	t.Cleanup(room.Disconnect)
	return v
}

// grows waits until more arrives than had arrived.
func grows(t *testing.T, what string, counter *atomic.Int64) {
	t.Helper()
	before := counter.Load()
	require.Eventually(t, func() bool { return counter.Load() > before+20 }, patience, 10*time.Millisecond, "%s: nothing arrives", what)
}

// offered asks the SFU itself, through the door, what of the sources the token
// lets publish, and returns what LiveKit has made of the token meanwhile.
func offered(t *testing.T, base, token string) (allowed []string, refreshed string) {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), base+"/rtc?protocol=15&auto_subscribe=1&access_token="+token, nil)
	require.NoError(t, err)
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(1 << 20)
	sources := []livekit.TrackSource{livekit.TrackSource_MICROPHONE, livekit.TrackSource_CAMERA, livekit.TrackSource_SCREEN_SHARE, livekit.TrackSource_SCREEN_SHARE_AUDIO}
	answered := 0
	for answered < len(sources) || refreshed == "" {
		_, message, err := c.Read(t.Context())
		require.NoError(t, err)
		var response livekit.SignalResponse
		require.NoError(t, proto.Unmarshal(message, &response))
		switch m := response.Message.(type) {
		case *livekit.SignalResponse_Join:
			for _, source := range sources {
				kind := livekit.TrackType_VIDEO
				if source == livekit.TrackSource_MICROPHONE || source == livekit.TrackSource_SCREEN_SHARE_AUDIO {
					kind = livekit.TrackType_AUDIO
				}
				request, err := proto.Marshal(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{
					AddTrack: &livekit.AddTrackRequest{Cid: source.String(), Type: kind, Source: source},
				}})
				require.NoError(t, err)
				require.NoError(t, c.Write(t.Context(), websocket.MessageBinary, request))
			}
		case *livekit.SignalResponse_TrackPublished:
			allowed = append(allowed, m.TrackPublished.Cid)
			answered++
		case *livekit.SignalResponse_RequestResponse:
			require.Equal(t, livekit.RequestResponse_NOT_ALLOWED, m.RequestResponse.Reason)
			answered++
		case *livekit.SignalResponse_RefreshToken:
			refreshed = m.RefreshToken
		}
	}
	return allowed, refreshed
}

// TestASourceIsTakenLive takes the camera from people in a call, by another rule
// and SIGHUP: it goes off at once, and no token that they have, of ours or
// LiveKit's, from before or after, gives it back.
func TestASourceIsTakenLive(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	i := newInstance(t)
	i.start()
	base := "http://" + i.public
	bo := watch(t, i, "bo")
	ana := join(t, i, "ana")
	ana.show(t, livekit.TrackSource_CAMERA)
	grows(t, "picture", &bo.pictures)
	grows(t, "sound", &bo.sounds)
	_, original := i.token("eve")
	all, before := offered(t, base, original)
	require.Equal(t, []string{"MICROPHONE", "CAMERA", "SCREEN_SHARE", "SCREEN_SHARE_AUDIO"}, all)

	began := time.Now()
	i.rule(", sources: [microphone]")
	select {
	case at := <-bo.dark:
		t.Logf("dark %s after the signal", at.Sub(began).Round(time.Millisecond))
	case <-time.After(patience):
		t.Fatal("the picture goes on")
	}
	arrived := bo.pictures.Load()
	grows(t, "sound", &bo.sounds)
	require.LessOrEqual(t, bo.pictures.Load()-arrived, int64(20), "what was on its way, and no more")
	require.NotEqual(t, "0", i.metric("passerelle_focus_rights_changed_total"))

	_, fresh := i.token("eve")
	limited, after := offered(t, base, fresh)
	require.Equal(t, []string{"MICROPHONE"}, limited)
	for name, token := range map[string]string{
		"the original": original, "LiveKit's from before": before, "one like it": like(t, i, before, true), "LiveKit's from after": after,
	} {
		got, again := offered(t, base, token)
		require.Equal(t, []string{"MICROPHONE"}, got, name)
		got, _ = offered(t, base, again)
		require.Equal(t, []string{"MICROPHONE"}, got, "what LiveKit makes of %s", name)
	}

	t.Run("a picture is no sound", func(t *testing.T) {
		dora := join(t, i, "dora")
		dora.show(t, livekit.TrackSource_MICROPHONE)
		select {
		case reason := <-dora.goodbye:
			require.Equal(t, livekit.DisconnectReason_PARTICIPANT_REMOVED, reason)
		case <-time.After(patience):
			t.Fatal("she sends a picture under the name of a microphone")
		}
	})
	t.Run("given back", func(t *testing.T) {
		i.rule("")
		require.Eventually(t, func() bool {
			got, _ := offered(t, base, after)
			return len(got) == 4
		}, patience, 100*time.Millisecond)
		ana.show(t, livekit.TrackSource_CAMERA)
		grows(t, "picture", &bo.pictures)
	})
}

// TestACallIsBounded holds the number of participants and the length of a call
// with the real SFU.
func TestACallIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the SFU")
	}
	i := newInstance(t)
	i.start()
	ana, bo := join(t, i, "ana"), join(t, i, "bo")
	ana.hear(t, time.Now())
	i.rule(", max_participants: 2, longest_call: 1m")
	base := "http://" + i.public
	_, jwt := i.token("cleo")
	status := func(name string) int {
		ways := intruder.Ways()
		n := slices.IndexFunc(ways, func(w intruder.Way) bool { return w.Name == name })
		return ways[n].Try(&http.Client{}, base, jwt)
	}
	require.Eventually(t, func() bool { return status("rtc, query") == http.StatusTooManyRequests }, patience, 20*time.Millisecond)
	require.Equal(t, http.StatusTooManyRequests, status("validate"), "and so is a client told that asks why")
	bo.room.Disconnect()
	require.Eventually(t, func() bool { return status("validate") == http.StatusOK }, patience, 50*time.Millisecond, "a place is free")

	// It began a minute ago.
	db, err := migrations.Open(t.Context(), migrations.Options{Type: migrations.SQLite, Path: filepath.Join(i.dir, "p.db"), MaxOpenConns: 1, Log: zerolog.Nop()})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.Exec(t.Context(), "UPDATE call_session SET started_at = started_at - 60000")
	require.NoError(t, err)
	select {
	case reason := <-ana.goodbye:
		require.Equal(t, livekit.DisconnectReason_ROOM_DELETED, reason)
	case <-time.After(patience):
		t.Fatal("the call goes on")
	}
	require.Equal(t, http.StatusForbidden, status("validate"), "tokens of that call are worthless")
	require.Equal(t, "1", i.metric("passerelle_focus_calls_ended_total"))
	_, jwt = i.token("cleo")
	require.Equal(t, http.StatusOK, status("validate"), "another call may begin")
	i.end(i.process)
	require.Equal(t, 1, strings.Count(i.said.String(), "A call was as long as it may be and has been ended"))
}

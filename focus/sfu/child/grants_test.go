package child_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"

	passerelle "passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
)

// call asks the SFU and returns status and body.
func call(t *testing.T, f *focus, method, path, token string) (int, string) {
	t.Helper()
	// As many of the requests' fields as there are: what is refused must be
	// refused for the token.
	body := fmt.Sprintf(`{"name":%q,"room":%[1]q,"identity":"victim","participant_identity":"victim","transfer_to":"tel:1","destination_room":"elsewhere","room_name":%[1]q,
		"metadata":"x","track_sid":"TR_x","track_sids":["TR_x"],"names":[%[1]q]}`, roomName)
	request, err := http.NewRequestWithContext(t.Context(), method, f.APIURL().String()+path, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

// TestWhatATokenOfOursCannotDo holds the real SFU against the tokens that
// clients get: they let into a room that is there, and nothing else. No call
// of LiveKit's services takes them, and none makes a room by joining it.
func TestWhatATokenOfOursCannotDo(t *testing.T) {
	f := newFocus(t, t.TempDir(), fixed(t), "").open(t)
	f.diary.next(t)
	require.True(t, <-f.fresh)
	f.waitReady(t)
	key, secret := f.Key()
	tokens := passerelle.NewTokens(key, secret.Reveal())
	sign := func(room string) string {
		token, err := tokens.Sign(matrixrtc.Grant{Room: matrixrtc.SFURoom(room), Identity: "@eve:hs:DEV", Publish: matrixrtc.AllSources, Lifetime: time.Hour})
		require.NoError(t, err)
		return token
	}
	service := lksdk.NewRoomServiceClient(f.APIURL().String(), key, secret.Reveal())
	rooms := func() []string {
		list, err := service.ListRooms(t.Context(), &livekit.ListRoomsRequest{})
		require.NoError(t, err)
		var names []string
		for _, room := range list.Rooms {
			names = append(names, room.Name)
		}
		return names
	}

	t.Run("services", func(t *testing.T) {
		called := map[string]int{}
		for _, file := range []protoreflect.FileDescriptor{
			livekit.File_livekit_room_proto, livekit.File_livekit_egress_proto, livekit.File_livekit_ingress_proto,
			livekit.File_livekit_sip_proto, livekit.File_livekit_agent_dispatch_proto,
		} {
			for i := range file.Services().Len() {
				s := file.Services().Get(i)
				for j := range s.Methods().Len() {
					path := "/twirp/" + string(s.FullName()) + "/" + string(s.Methods().Get(j).Name())
					for holder, token := range map[string]string{"a member": sign(roomName), "a member of another room": sign("other"), "nobody": ""} {
						status, body := call(t, f, http.MethodPost, path, token)
						require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}, status, "%s by %s: %s", path, holder, body)
						if status == http.StatusNotFound {
							require.Contains(t, body, "bad_route", "%s by %s: it was let so far as to look", path, holder)
						}
						called[string(s.Name())]++
					}
				}
			}
		}
		require.GreaterOrEqual(t, called["RoomService"], 3*11)
		require.Equal(t, []string{roomName}, rooms(), "no room was made, and none deleted")
	})

	t.Run("attributes of one's own", func(t *testing.T) {
		attributes := url.Values{"attributes": {base64.URLEncoding.EncodeToString([]byte(`{"role":"host"}`))}, "access_token": {sign(roomName)}}
		status, body := call(t, f, http.MethodGet, "/rtc/validate?"+attributes.Encode(), "")
		require.Equal(t, http.StatusUnauthorized, status)
		require.Equal(t, "no permissions to access the room", body, "the door tells it by this from a key that the SFU does not know")
		status, body = call(t, f, http.MethodGet, "/rtc/validate", "e30.e30.e30")
		require.Equal(t, http.StatusUnauthorized, status)
		require.NotContains(t, body, "no permissions")
	})

	t.Run("a room that nobody made", func(t *testing.T) {
		status, body := call(t, f, http.MethodGet, "/rtc/validate?access_token="+sign("never-made"), "")
		require.Equal(t, http.StatusNotFound, status, body)
		status, body = call(t, f, http.MethodGet, "/rtc/validate?access_token="+sign(roomName), "")
		require.Equal(t, http.StatusOK, status, "one that is there: %s", body)
		_, err := lksdk.ConnectToRoomWithToken(f.APIURL().String(), sign("never-made"), lksdk.NewRoomCallback())
		require.Error(t, err)
		require.Equal(t, []string{roomName}, rooms())
		member, err := lksdk.ConnectToRoomWithToken(f.APIURL().String(), sign(roomName), lksdk.NewRoomCallback())
		require.NoError(t, err, "the token itself is good")
		member.Disconnect()
	})
}

package focus_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/focus/proxied"
	"passerelle/migrations/migrationstest"
)

const (
	vouchedKey   = "hs-3Kt8Ye1Uw6Ri0Ob5Nc9Ls2Gd7Ma4Qz"
	userRoute    = "/_matrix/client/v1/rtc/livekit/get_token"
	serverRoute  = "/_matrix/federation/v1/rtc/livekit/get_token"
	userHeader   = "X-Matrix-User-Identifier"
	originHeader = "X-Matrix-Origin"
)

// vouch has a homeserver hand a request over, in the name of who stands in the
// header.
func (w *world) vouch(t *testing.T, path, authorization, header, name, body string) *httptest.ResponseRecorder {
	t.Helper()
	listener := proxied.New(proxied.Options{
		HSToken: vouchedKey, Token: w.ServeVouched, Delegate: w.ServeVouchedLeave,
		Log: zerolog.Nop(), Registerer: prometheus.NewRegistry(),
	})
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	request.Header = http.Header{"Authorization": {authorization}, header: {name}}
	recorder := httptest.NewRecorder()
	listener.ServeHTTP(recorder, request)
	require.Equal(t, "application/json", recorder.Header().Get("Content-Type"))
	require.True(t, strings.HasPrefix(recorder.Body.String(), "{"), recorder.Body)
	require.NotEqual(t, http.StatusUnauthorized, recorder.Code, "a client would take it for the end of its session")
	return recorder
}

func (w *world) ofAna(t *testing.T, body string) *httptest.ResponseRecorder {
	t.Helper()
	return w.vouch(t, userRoute, "Bearer "+vouchedKey, userHeader, "@ana:own.example", body)
}

func (w *world) ofFriend(t *testing.T, body string) *httptest.ResponseRecorder {
	t.Helper()
	return w.vouch(t, serverRoute, "Bearer "+vouchedKey, originHeader, "friend.example", body)
}

// bothJoined are Ana and Bo, who may both have tokens.
func bothJoined(w *world) {
	w.members.in = map[string]bool{"!roomid:example.com @ana:own.example": true, "!roomid:example.com @bo:friend.example": true}
}

// TestAServerSpeaksForItsOwnUsersAlone, and a client for itself: whoever else is
// named, in whatever spelling and with whatever proof in the body.
func TestAServerSpeaksForItsOwnUsersAlone(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		bothJoined(w)
		w.access["own.example"] = matrixrtc.Access{Join: true, Publish: matrixrtc.AllSources, Create: true}
		for _, user := range []string{
			"@ana:own.example", "@bo:friend.example.evil.example", "@bo:friend.example:8448", "@bo:FRIEND.example", "@bo:xfriend.example",
			"@bo:own.example:friend.example", "bo:friend.example", "!bo:friend.example", "@bo", "friend.example", "@bo:friend.example.",
		} {
			got := w.ofFriend(t, strings.Replace(federatedRequest, "@bo:friend.example", user, 1))
			require.Equal(t, http.StatusForbidden, got.Code, "%s: %s", user, got.Body)
			require.Contains(t, got.Body.String(), "M_FORBIDDEN")
		}
		for _, user := range []string{"@bo:friend.example", "@ana:own.example.evil.example", "@ana:OWN.example", "ana:own.example", "@ana"} {
			got := w.vouch(t, userRoute, "Bearer "+vouchedKey, userHeader, user, vouchedRequest)
			require.Equal(t, http.StatusForbidden, got.Code, "%s: %s", user, got.Body)
		}
		require.Zero(t, w.members.asked)
		require.Empty(t, w.signed)
		require.Zero(t, count(t, db, "call_grant"))

		// What the body says of the user is nothing to who is vouched for.
		claims := strings.Replace(vouchedRequest, "{", `{"user_id":"@eve:own.example","openid_token":{"access_token":"eve's","matrix_server_name":"own.example"},`, 1)
		require.Equal(t, http.StatusOK, w.ofAna(t, claims).Code)
		require.Equal(t, matrixrtc.Member{UserID: "@ana:own.example", ID: "m"}.ProxiedIdentity(), w.signed[0].Identity)
		require.Zero(t, w.asked, "no OpenID token is asked about")
	})
}

// TestAReplayedRequestGivesNothingNew: a homeserver that takes the same signed
// request twice hands it over twice. It is for the same participant each time,
// and for nobody once that one may not any more.
func TestAReplayedRequestGivesNothingNew(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		bothJoined(w)
		bo := matrixrtc.Member{UserID: "@bo:friend.example", ID: "m"}.ProxiedIdentity()
		for range 3 {
			require.Equal(t, http.StatusOK, w.ofFriend(t, federatedRequest).Code)
		}
		require.Equal(t, 1, count(t, db, "call_grant"))
		for _, g := range w.signed {
			require.Equal(t, bo, g.Identity)
			require.EqualValues(t, roomHash, g.Room)
		}
		got := w.vouch(t, serverRoute, "Bearer "+vouchedKey, originHeader, "evil.example", federatedRequest)
		require.Equal(t, http.StatusForbidden, got.Code, "another server sends it again: %s", got.Body)
		got = w.vouch(t, userRoute, "Bearer "+vouchedKey, originHeader, "friend.example", federatedRequest)
		require.Equal(t, http.StatusNotFound, got.Code, "on the users' route: %s", got.Body)

		delete(w.members.in, "!roomid:example.com @bo:friend.example")
		require.NoError(t, w.MemberGone(t.Context(), "!roomid:example.com", "@bo:friend.example"))
		signed := len(w.signed)
		require.Equal(t, http.StatusForbidden, w.ofFriend(t, federatedRequest).Code)
		w.members.silent = http.ErrServerClosed
		require.Equal(t, http.StatusBadGateway, w.ofFriend(t, federatedRequest).Code, "nor while nobody can be asked")
		require.Len(t, w.signed, signed)
		require.ErrorIs(t, w.admit(t, w.ticket(bo)), focus.ErrNotAdmitted)
	})
}

// TestForgedBearers: nothing but the hs_token itself is the hs_token.
func TestForgedBearers(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		bothJoined(w)
		for name, authorization := range map[string]string{
			"a JWT of no algorithm":   "Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpc3MiOiJocyJ9.",
			"one with the key's name": "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6Ii4uLy4uL2hzX3Rva2VuIn0.e30.AAAA",
			"a client's token":        "Bearer signed",
			"in base64":               "Bearer aHMtM0t0OFllMVV3NlJpME9iNU5jOUxzMkdkN01hNFF6",
			"Basic":                   "Basic aHM6aHMtM0t0OFllMVV3NlJpME9iNU5jOUxzMkdkN01hNFF6",
			"escaped":                 "Bearer hs%2D3Kt8Ye1Uw6Ri0Ob5Nc9Ls2Gd7Ma4Qz",
			"in lower case":           "Bearer " + strings.ToLower(vouchedKey),
			"twice in one":            "Bearer " + vouchedKey + ", Bearer " + vouchedKey,
			"with an end":             "Bearer " + vouchedKey + "\x00",
			"huge":                    "Bearer " + strings.Repeat("x", 1<<20),
			"a signature":             `X-Matrix origin="friend.example",destination="own.example",key="ed25519:1",sig="AAAA"`,
		} {
			for path, header := range map[string]string{userRoute: userHeader, serverRoute: originHeader} {
				got := w.vouch(t, path, authorization, header, "friend.example", federatedRequest)
				require.Equal(t, http.StatusForbidden, got.Code, "%s: %s", name, got.Body)
			}
		}
		inQuery := w.vouch(t, serverRoute+"?access_token="+vouchedKey, "Bearer", originHeader, "friend.example", federatedRequest)
		require.Equal(t, http.StatusForbidden, inQuery.Code)
		require.Zero(t, w.members.asked)
		require.Empty(t, w.signed)
		require.Equal(t, http.StatusOK, w.ofFriend(t, federatedRequest).Code, "while the token itself is believed")
	})
}

// TestMalformedVouchedBodies change nothing, and ask nobody anything.
func TestMalformedVouchedBodies(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		bothJoined(w)
		replace := func(old, new string) string { return strings.Replace(federatedRequest, old, new, 1) }
		for name, body := range map[string]string{
			"nothing":            "",
			"a list":             "[" + federatedRequest + "]",
			"a text":             `"` + userRoute + `"`,
			"null":               "null",
			"half":               federatedRequest[:len(federatedRequest)/2],
			"two":                federatedRequest + federatedRequest,
			"deep":               replace("{", `{"x":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+","),
			"deeper":             strings.Repeat(`{"a":`, 6000),
			"a room of a number": replace(`"!roomid:example.com"`, "7"),
			"a room of a list":   replace(`"!roomid:example.com"`, `["!roomid:example.com"]`),
			"no room":            replace("room_id", "roomid"),
			"an empty room":      replace("!roomid:example.com", ""),
			"a long room":        replace("!roomid", "!"+strings.Repeat("r", 300)),
			"a line in the room": replace("!roomid", `!room\nid`),
			"an end in the slot": replace("m.call#ROOM", `m.call\u0000`),
			"a long member":      replace(`"m"`, `"`+strings.Repeat("m", 300)+`"`),
			"a member of null":   replace(`"m"`, "null"),
			"a long address":     replace("wss://", "wss://"+strings.Repeat("a", 300)),
			"no slot":            replace("slot_id", "slot"),
			"no UTF-8":           replace("!roomid", "!\xff\xfe"),
		} {
			for _, ask := range []func(*testing.T, string) *httptest.ResponseRecorder{w.ofAna, w.ofFriend} {
				got := ask(t, body)
				require.Contains(t, []int{http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge}, got.Code, "%s: %s", name, got.Body)
				require.Less(t, got.Body.Len(), 200, "%s: repeats nothing of what came", name)
			}
		}
		require.Empty(t, w.signed)
		require.Empty(t, w.ensured)
		require.Zero(t, count(t, db, "call_grant"))
	})
}

// TestVouchedGrantsAreTheLeast: whatever else a body asks for.
func TestVouchedGrantsAreTheLeast(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		bothJoined(w)
		const greedy = `{"can_publish":true,"roomCreate":true,"video":{"roomAdmin":true,"roomCreate":true,"hidden":true,"canPublish":true},
			"grants":{"roomList":true},"identity":"@eve:own.example:DEV","metadata":"x","ttl":"999h","lifetime":999999999,`
		require.Equal(t, http.StatusOK, w.ofAna(t, strings.Replace(vouchedRequest, "{", greedy, 1)).Code)
		require.Equal(t, http.StatusOK, w.ofFriend(t, strings.Replace(federatedRequest, "{", greedy, 1)).Code)
		publish := []matrixrtc.Sources{matrixrtc.AllSources, 0}
		for i, who := range []matrixrtc.Member{{UserID: "@ana:own.example", ID: "m"}, {UserID: "@bo:friend.example", ID: "m"}} {
			require.Equal(t, matrixrtc.Grant{Room: roomHash, Identity: who.ProxiedIdentity(), Publish: publish[i], Lifetime: time.Hour, Term: w.signed[i].Term}, w.signed[i])
		}
	})
}

// TestWhoIsVouchedForFromElsewhereStartsNothing: neither with the token nor by
// coming in with it.
func TestWhoIsVouchedForFromElsewhereStartsNothing(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		bothJoined(w)
		require.Equal(t, http.StatusOK, w.ofFriend(t, federatedRequest).Code)
		bo := matrixrtc.Member{UserID: "@bo:friend.example", ID: "m"}.ProxiedIdentity()
		require.ErrorIs(t, w.admit(t, w.ticket(bo)), focus.ErrNoCall)
		require.Empty(t, w.ensured)
		require.Equal(t, http.StatusOK, w.ofAna(t, vouchedRequest).Code)
		require.NoError(t, w.admit(t, w.ticket(bo)), "once somebody of ours has")
	})
}

// TestVouchedRefusalsSayNothingOfTheRoom: of whatever room, they are one
// answer, after one question and the same limits.
func TestVouchedRefusalsSayNothingOfTheRoom(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorldWith(t, db, required)
		w.members.in = map[string]bool{"!roomid:example.com @eve:own.example": true}
		for _, ask := range []struct {
			by   func(*testing.T, string) *httptest.ResponseRecorder
			body string
		}{{w.ofAna, vouchedRequest}, {w.ofAna, olderRequest}, {w.ofFriend, federatedRequest}} {
			var first *httptest.ResponseRecorder
			var counted []string
			for _, room := range []string{"!roomid:example.com", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM", "!unknown:own.example", "!r", "#alias:own.example", "r", ".."} {
				w.members.asked, w.counted = 0, nil
				got := ask.by(t, strings.Replace(ask.body, "!roomid:example.com", room, 1))
				require.Equal(t, 1, w.members.asked, room)
				if first == nil {
					first, counted = got, w.counted
				}
				require.Equal(t, http.StatusForbidden, got.Code, room)
				require.Equal(t, first.Body.String(), got.Body.String(), room)
				require.Equal(t, first.Header(), got.Header(), room)
				require.Equal(t, counted, w.counted, room)
			}
		}
		require.Empty(t, w.signed)
		require.Zero(t, count(t, db, "call_session"))
	})
}

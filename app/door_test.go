package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/livekit/protocol/auth"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/app"
	"passerelle/config"
	"passerelle/focus/door"
	"passerelle/focus/livekit"
	"passerelle/focus/matrixrtc"
)

// ticket asks for a token and reads it.
func (p *program) ticket(t *testing.T) (token string, read matrixrtc.Ticket) {
	t.Helper()
	answer, body := do(t, http.MethodPost, p.public+"/get_token", p.standalone(), nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
	var got struct{ JWT string }
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	own, err := livekit.NewDoorTokens(sfuKey, sfuSecret)
	require.NoError(t, err)
	read, err = livekit.NewVerifier(own, livekit.NewTokens(sfuKey, sfuSecret)).Verify(got.JWT)
	require.NoError(t, err)
	return got.JWT, read
}

// refreshed is what LiveKit makes for who is connected (its
// RoomManager.refreshToken), by its own library.
func refreshed(t *testing.T, ticket matrixrtc.Ticket, term bool) string {
	t.Helper()
	video := &auth.VideoGrant{RoomJoin: true, Room: string(ticket.Room)}
	if term {
		video.DestinationRoom = fmt.Sprintf("term-%d", ticket.Term)
	}
	token, err := auth.NewAccessToken(sfuKey, sfuSecret).SetIdentity(string(ticket.Identity)).
		SetVideoGrant(video).SetValidFor(10 * time.Minute).ToJWT()
	require.NoError(t, err)
	return token
}

// knock is the status of each of the door's routes, which are all the same.
func (p *program) knock(t *testing.T, query string, headers ...string) int {
	t.Helper()
	status := 0
	for _, route := range door.Routes {
		header := http.Header{"Authorization": headers}
		if !strings.HasSuffix(route, "validate") {
			header["Connection"], header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
		}
		answer, body := do(t, http.MethodGet, p.public+route+"?"+query, "", header)
		require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"), route)
		if status != 0 {
			require.Equal(t, status, answer.StatusCode, "%s: %s", route, body)
		}
		status = answer.StatusCode
	}
	return status
}

func query(tokens ...string) string { return url.Values{"access_token": tokens}.Encode() }

// Every token that is not good is refused at the socket and at the question
// why, for good, and in a way that a browser's script can read.
func TestForgedTokens(t *testing.T) {
	p := startProgram(t)
	good, ticket := p.ticket(t)
	require.Equal(t, http.StatusOK, p.knock(t, query(refreshed(t, ticket, true))))
	require.Equal(t, http.StatusOK, p.knock(t, query(refreshed(t, ticket, false))))

	sign := func(method jwt.SigningMethod, key any, change func(jwt.MapClaims)) string {
		c := jwt.MapClaims{
			"iss": sfuKey, "sub": string(ticket.Identity), "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			"video": map[string]any{"roomJoin": true, "room": string(ticket.Room)},
		}
		change(c)
		token, err := jwt.NewWithClaims(method, c).SignedString(key)
		require.NoError(t, err)
		return token
	}
	hs256 := func(change func(jwt.MapClaims)) string {
		return sign(jwt.SigningMethodHS256, []byte(sfuSecret), change)
	}
	require.Equal(t, http.StatusOK, p.knock(t, query(hs256(func(jwt.MapClaims) {}))), "each below fails for its own reason")
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"alg none":                            sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, func(jwt.MapClaims) {}),
		"none, as it was":                     "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"RS256, HMAC":                         "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9." + parts[1] + "." + parts[2],
		"HS512":                               sign(jwt.SigningMethodHS512, []byte(sfuSecret), func(jwt.MapClaims) {}),
		"wrong secret":                        sign(jwt.SigningMethodHS256, []byte(strings.ToUpper(sfuSecret)), func(jwt.MapClaims) {}),
		"the SFU's secret for the door's key": hs256(func(c jwt.MapClaims) { c["iss"] = "door-" + sfuKey }),
		"wrong issuer":                        hs256(func(c jwt.MapClaims) { c["iss"] = "APIother" }),
		"expired":                             hs256(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() }),
		"not yet":                             hs256(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Minute).Unix() }),
		"no room":                             hs256(func(c jwt.MapClaims) { c["video"] = map[string]any{"roomJoin": true} }),
		"another room":                        hs256(func(c jwt.MapClaims) { c["video"] = map[string]any{"roomJoin": true, "room": "other"} }),
		"somebody else":                       hs256(func(c jwt.MapClaims) { c["sub"] = "@eve:hs:DEV" }),
		"an administrator": hs256(func(c jwt.MapClaims) {
			c["video"] = map[string]any{"roomAdmin": true, "roomCreate": true, "room": string(ticket.Room)}
		}),
		"another term": hs256(func(c jwt.MapClaims) {
			c["video"] = map[string]any{"roomJoin": true, "room": string(ticket.Room), "destinationRoom": "term-1"}
		}),
		"garbage": "garbage", "dots": "..", "empty": "", "huge": strings.Repeat("A", 9000),
	} {
		require.Equal(t, http.StatusForbidden, p.knock(t, query(token)), name)
	}
}

// One token, in one place, or none at all.
func TestTokensInEveryCombination(t *testing.T) {
	p := startProgram(t)
	good, _ := p.ticket(t)
	require.Equal(t, http.StatusOK, p.knock(t, query(good)))
	require.Equal(t, http.StatusOK, p.knock(t, "", "Bearer "+good))
	for name, c := range map[string]struct {
		query   string
		headers []string
	}{
		"none":                   {"", nil},
		"two in the query":       {query(good, good), nil},
		"a bad one before":       {query("bad", good), nil},
		"a bad one behind":       {query(good, "bad"), nil},
		"an empty one beside":    {query(good, ""), nil},
		"header and query":       {query(good), []string{"Bearer " + good}},
		"empty header and query": {query(good), []string{""}},
		"two headers":            {"", []string{"Bearer " + good, "Bearer " + good}},
		"two in one header":      {"", []string{"Bearer " + good + ", Bearer " + good}},
		"lower case":             {"", []string{"bearer " + good}},
		"encoded twice":          {query(good) + "&access%5Ftoken=" + good, nil},
		"semicolon":              {query(good) + ";access_token=" + good, nil},
	} {
		require.Equal(t, http.StatusForbidden, p.knock(t, c.query, c.headers...), name)
	}
}

// Who connects again and again has to wait; others do not, nor does anybody for a
// token that is not genuine.
func TestAttemptsOfOne(t *testing.T) {
	p := startProgram(t)
	good, _ := p.ticket(t)
	parts := strings.Split(good, ".")
	for range 20 {
		require.Equal(t, http.StatusForbidden, p.knock(t, query(parts[0]+"."+parts[1]+".AAAA")))
	}
	for range 15 {
		require.Equal(t, http.StatusOK, p.knock(t, query(good)))
	}
	answer, body := do(t, http.MethodGet, p.public+"/rtc/validate?"+query(good), "", nil)
	for n := 0; n < 60 && answer.StatusCode == http.StatusOK; n++ { // on a slow machine some time has passed
		answer, body = do(t, http.MethodGet, p.public+"/rtc/validate?"+query(good), "", nil)
	}
	require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
	require.Equal(t, []string{"*"}, answer.Header.Values("Access-Control-Allow-Origin"))
	require.NotEmpty(t, answer.Header.Get("Retry-After"))
	require.Equal(t, "too many attempts to connect; try again later\n", body)
	answer, body = do(t, http.MethodPost, p.public+"/sfu/get", p.legacy(), nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
	var other struct{ JWT string }
	require.NoError(t, json.Unmarshal([]byte(body), &other))
	require.Equal(t, http.StatusOK, p.knock(t, query(other.JWT)), "another identity")
}

func (p *program) revoke(t *testing.T, body string) (int, string) {
	t.Helper()
	answer, text := do(t, http.MethodPost, p.private+"/admin/revoke", body, http.Header{"Content-Type": {"application/json"}})
	return answer.StatusCode, text
}

func TestRevocationByHand(t *testing.T) {
	p := startProgram(t)
	old, ticket := p.ticket(t)
	made := []string{old, refreshed(t, ticket, true), refreshed(t, ticket, false)}
	for _, wrong := range []string{``, `{}`, `{"room_id": "!r:hs"}`, `{"user_id": "@ana:hs", "room": "!r:hs"}`, `[]`,
		`{"reason": "` + strings.Repeat("x", 5000) + `"}`} {
		status, body := p.revoke(t, wrong)
		require.Equal(t, http.StatusBadRequest, status, body)
	}
	for _, wrong := range []string{`"room_id": ""}`, `"room_id": null}`, `"room_id": "#r:hs"}`, `"room_id": ["!r:hs"]}`,
		`"room_id": "!r:hs"} {}`, `"room_id": "!r:hs"}}`} { // none of them may mean all rooms
		status, body := p.revoke(t, fmt.Sprintf(`{"user_id": %q, `, p.home.User("ana"))+wrong)
		require.Equal(t, http.StatusBadRequest, status, body)
	}
	form, _ := do(t, http.MethodPost, p.private+"/admin/revoke", fmt.Sprintf(`{"user_id": %q}`, p.home.User("ana")),
		http.Header{"Content-Type": {"text/plain"}})
	require.Equal(t, http.StatusUnsupportedMediaType, form.StatusCode, "a web page can send this")
	public, _ := do(t, http.MethodPost, p.public+"/admin/revoke", `{}`, nil)
	require.Equal(t, http.StatusNotFound, public.StatusCode)
	require.Equal(t, http.StatusOK, p.knock(t, query(old)), "nothing has happened yet")

	status, body := p.revoke(t, fmt.Sprintf(`{"user_id": %q, "room_id": "!r:hs"}`, p.home.User("ana")))
	require.Equal(t, http.StatusOK, status, body)
	require.JSONEq(t, `{"revoked": 1}`, body)
	require.Equal(t, []string{string(ticket.Identity)}, p.removedFromSFU())
	for _, token := range made {
		require.Equal(t, http.StatusForbidden, p.knock(t, query(token)))
	}
	p.restart(t)
	for _, token := range made {
		require.Equal(t, http.StatusForbidden, p.knock(t, query(token)), "after a restart")
	}
	fresh, now := p.ticket(t)
	require.Equal(t, http.StatusOK, p.knock(t, query(fresh)), "in the same second")
	require.Equal(t, http.StatusOK, p.knock(t, query(refreshed(t, now, true))))
	for _, token := range made[:2] {
		require.Equal(t, http.StatusForbidden, p.knock(t, query(token)), "what is older stays worthless")
	}
	p.restart(t)
	require.Equal(t, http.StatusOK, p.knock(t, query(fresh)), "the key is the same after a restart")
	require.Equal(t, http.StatusForbidden, p.knock(t, query(old)))
}

// restart is another process on the same database.
func (p *program) restart(t *testing.T) {
	t.Helper()
	require.NoError(t, p.Stop())
	load := func() (*config.Config, error) { return config.Load(p.file, nil) }
	c, err := load()
	require.NoError(t, err)
	p.App, err = app.New(t.Context(), app.Options{Config: c, Load: load, Log: zerolog.Nop(), Version: "test"})
	require.NoError(t, err)
	require.NoError(t, p.Start(t.Context()))
	p.public, p.private = "http://"+p.PublicAddr().String(), "http://"+p.PrivateAddr().String()
}

// With direct signalling clients are sent to the SFU, with tokens that it
// knows. Those that they still have for the door are good there.
func TestDirectSignalling(t *testing.T) {
	p := startProgram(t)
	before, _ := p.ticket(t)
	good, err := os.ReadFile(p.file)
	require.NoError(t, err)
	p.write(t, strings.Replace(string(good), "livekit: {mode: external,",
		`livekit: {mode: external, signalling: direct, public_url: "wss://sfu.example.org/x",`, 1))
	p.restart(t)
	answer, body := do(t, http.MethodPost, p.public+"/get_token", p.standalone(), nil)
	require.Equal(t, http.StatusOK, answer.StatusCode, body)
	var got struct{ URL, JWT string }
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, "wss://sfu.example.org/x", got.URL)
	parsed, err := auth.ParseAPIToken(got.JWT)
	require.NoError(t, err)
	require.Equal(t, sfuKey, parsed.APIKey())
	_, _, err = parsed.Verify(sfuSecret)
	require.NoError(t, err, "the SFU knows the key")
	require.Equal(t, http.StatusOK, p.knock(t, query(before)))
	require.Equal(t, http.StatusOK, p.knock(t, query(got.JWT)))
}

// removedFromSFU are the identities that the SFU was asked to remove.
func (p *program) removedFromSFU() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.removed
}

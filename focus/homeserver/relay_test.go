package homeserver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/focus/homeserver"
)

const (
	fedProxy  = "/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy"
	tokenPath = "/_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token"
)

// post has the homeserver, which may be silent, carry a request to a friend.
func post(t *testing.T, transport http.RoundTripper) (int, json.RawMessage, error) {
	t.Helper()
	client := homeserver.NewClient(homeserver.Options{URL: "http://hs.example/base/", Token: "as-token", Transport: transport})
	return client.Post(t.Context(), "friend.example", tokenPath, map[string]string{"user_id": "@ana:own.example"})
}

// TestPost: what the other server answers is told apart from what our own does,
// and a homeserver that carries nothing from one that failed this once. The
// answers are those of a real Synapse.
func TestPost(t *testing.T) {
	const failed, never = "failed", "never"
	denied := func(code string) string {
		return `{"errcode":"IO.ELEMENT.MSC4512.M_FEDPROXY_` + code + `","error":"friend.example"}`
	}
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // the other's status and content, or how it fails
	}{
		"granted":              {200, `{"status":200,"content":{"jwt":"x"}}`, `200 {"jwt":"x"}`},
		"bad request there":    {200, `{"status":400,"content":{"errcode":"M_BAD_JSON"}}`, `400 {"errcode":"M_BAD_JSON"}`},
		"forbidden there":      {200, `{"status":403,"content":{"errcode":"M_FORBIDDEN"}}`, `403 {"errcode":"M_FORBIDDEN"}`},
		"no such path there":   {200, `{"status":404,"content":{"errcode":"M_UNRECOGNIZED"}}`, `404 {"errcode":"M_UNRECOGNIZED"}`},
		"limited there":        {200, `{"status":429,"content":{"errcode":"M_LIMIT_EXCEEDED"}}`, `429 {"errcode":"M_LIMIT_EXCEEDED"}`},
		"fails there":          {200, `{"status":500,"content":{"errcode":"M_UNKNOWN"}}`, `500 {"errcode":"M_UNKNOWN"}`},
		"fails without a word": {200, `{"status":500}`, `500 `},
		"a list there":         {200, `{"status":200,"content":[]}`, `200 []`},

		"not reached":           {502, denied("CONNECTION_FAILED"), failed},
		"our own server":        {403, denied("DESTINATION_DENIED"), failed},
		"path not allowed":      {403, denied("PATH_NOT_ALLOWED"), failed},
		"our token is no AS's":  {403, `{"errcode":"M_FORBIDDEN"}`, never},
		"no prefix claimed":     {400, denied("NO_PROXY_PREFIX"), never},
		"not offered":           {404, `{"errcode":"M_UNRECOGNIZED"}`, never},
		"404 of something else": {404, `<html>`, failed},
		"403 of something else": {403, `<html>`, failed},
		"a mistake of ours":     {400, `{"errcode":"M_INVALID_PARAM"}`, failed},
		"wrong token":           {401, `{"errcode":"M_UNKNOWN_TOKEN"}`, failed},
		"limited":               {429, `{"errcode":"M_LIMIT_EXCEEDED"}`, failed},
		"fails":                 {500, `oops`, failed},
		"down":                  {0, "connection refused", failed},

		"no status":        {200, `{"content":{"jwt":"x"}}`, failed},
		"status as text":   {200, `{"status":"200","content":{"jwt":"x"}}`, failed},
		"fraction":         {200, `{"status":200.5,"content":{"jwt":"x"}}`, failed},
		"not JSON":         {200, `<html>`, failed},
		"nothing":          {200, ``, failed},
		"a list":           {200, `[{"status":200}]`, failed},
		"null":             {200, `null`, failed},
		"two answers":      {200, `{"status":200,"content":{}}{}`, failed},
		"huge":             {200, `{"status":200,"content":{"jwt":"` + strings.Repeat("x", 64<<10) + `"}}`, failed},
		"created, not 200": {201, `{"status":200,"content":{"jwt":"x"}}`, failed},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{answer: func(r *http.Request) (int, string) {
				if body, err := io.ReadAll(r.Body); err != nil || r.Header.Get("Content-Type") != "application/json" ||
					string(body) != `{"destination":"friend.example","method":"POST","path":"`+tokenPath+`","body":{"user_id":"@ana:own.example"}}` {
					return 400, `{"errcode":"M_NOT_JSON"}`
				}
				return c.status, c.body
			}}
			status, content, err := post(t, f)
			require.Equal(t, []string{"POST /base" + fedProxy + "?"}, f.asked, "asked once")
			if c.want != failed && c.want != never {
				require.NoError(t, err)
				require.Equal(t, c.want, fmt.Sprintf("%d %s", status, content))
				return
			}
			require.Error(t, err)
			require.Equal(t, c.want == never, errors.Is(err, homeserver.ErrNoProxy), err)
			require.Zero(t, status)
			require.Nil(t, content)
			for _, secret := range []string{"as-token", "ana", "friend.example", "oops", "html"} {
				require.NotContains(t, err.Error(), secret)
			}
		})
	}
}

// TestPostIsBounded: Synapse alone would try for more than 90 seconds.
func TestPostIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, _, err := post(t, silence{})
		require.EqualError(t, err, "it gave no answer in time")
		require.Equal(t, 10*time.Second, time.Since(began))

		// The other server is tried four times, which is longer than our own
		// homeserver has for a question.
		status, _, err := post(t, &fake{answer: func(*http.Request) (int, string) {
			time.Sleep(9 * time.Second)
			return 200, `{"status":503,"content":{}}`
		}})
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, status)
	})
}

// silence is a homeserver that never answers.
type silence struct{}

func (silence) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestPostIsNotRedirected: the token, and whom it is about, go to the address
// that the operator wrote.
func TestPostIsNotRedirected(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked elsewhere") }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		asked := 0
		own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			http.Redirect(w, r, elsewhere.URL, status)
		}))
		client := homeserver.NewClient(homeserver.Options{URL: own.URL, Token: "as-token"})
		_, _, err := client.Post(t.Context(), "friend.example", tokenPath, struct{}{})
		client.Close()
		own.Close()
		require.EqualError(t, err, fmt.Sprintf("status %d", status))
		require.Equal(t, 1, asked)
	}
}

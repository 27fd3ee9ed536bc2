package focus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/migrations/migrationstest"
)

// peer is the service beside another homeserver, through ours.
type peer struct {
	status  int
	content string
	failure error
	sent    []string
}

func (p *peer) Post(ctx context.Context, server, path string, body any) (int, json.RawMessage, error) {
	if _, ok := ctx.Deadline(); !ok {
		return 0, nil, errors.New("no deadline")
	}
	encoded, err := json.Marshal(body)
	p.sent = append(p.sent, fmt.Sprintf("%s %s %s", server, path, encoded))
	return p.status, json.RawMessage(p.content), errors.Join(err, p.failure)
}

func TestRelay(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		proxied := ways()[2]
		remote := func(server string) string {
			return strings.Replace(strings.Replace(vouchedRequest, "{", `{"server_name":"`+server+`",`, 1), "rtc.own", "sfu.friend", 1)
		}
		for name, c := range map[string]struct {
			peer   peer
			server string
			in     bool
			status int
			want   string
			sent   int
		}{
			"granted":             {peer{200, `{"jwt":"theirs","url":"x"}`, nil, nil}, "friend.example", true, 200, `{"jwt":"theirs"}`, 1},
			"forbidden there":     {peer{403, `{"errcode":"M_FORBIDDEN","error":"no"}`, nil, nil}, "friend.example", true, 403, `{"errcode":"M_FORBIDDEN","error":"no"}`, 1},
			"their url is wrong":  {peer{400, `{"errcode":"M_INVALID_PARAM","error":"no"}`, nil, nil}, "friend.example", true, 400, `"M_INVALID_PARAM"`, 1},
			"a code of their own": {peer{403, `{"errcode":"M_EVIL"}`, nil, nil}, "friend.example", true, 502, `"M_UNKNOWN"`, 1},
			"401 there":           {peer{401, `{"errcode":"M_UNKNOWN_TOKEN"}`, nil, nil}, "friend.example", true, 502, `"M_UNKNOWN"`, 1},
			"429 there":           {peer{429, `{"errcode":"M_LIMIT_EXCEEDED"}`, nil, nil}, "friend.example", true, 502, `"M_UNKNOWN"`, 1},
			"no word there":       {peer{404, `null`, nil, nil}, "friend.example", true, 404, `"M_NOT_FOUND"`, 1},
			"nothing at all":      {peer{404, ``, nil, nil}, "friend.example", true, 404, `"M_NOT_FOUND"`, 1},
			"a page there":        {peer{404, `"no such page"`, nil, nil}, "friend.example", true, 404, `"M_NOT_FOUND"`, 1},
			"another 404 there":   {peer{404, `{"errcode":"M_NOT_FOUND"}`, nil, nil}, "friend.example", true, 502, `"M_UNKNOWN"`, 1},
			"no such path there":  {peer{404, `{"errcode":"M_UNRECOGNIZED"}`, nil, nil}, "friend.example", true, 404, `"M_NOT_FOUND"`, 1},
			"no token":            {peer{200, `{}`, nil, nil}, "friend.example", true, 502, `"M_UNKNOWN"`, 1},
			"no text":             {peer{200, `{"jwt":5}`, nil, nil}, "friend.example", true, 502, `"M_UNKNOWN"`, 1},
			"a list":              {peer{200, `[]`, nil, nil}, "friend.example", true, 502, `"M_UNKNOWN"`, 1},
			"unreachable":         {peer{0, `{}`, errors.New("10.1.2.3: refused"), nil}, "friend.example", true, 502, `{"errcode":"M_UNKNOWN","error":"the other server gave no token"}`, 1},
			"no relay":            {peer{0, `{}`, focus.ErrNoRelay, nil}, "friend.example", true, 404, `"M_NOT_FOUND"`, 1},
			"not in the room":     {peer{200, `{"jwt":"theirs"}`, nil, nil}, "friend.example", false, 403, `"M_FORBIDDEN"`, 0},
			"an unknown server":   {peer{200, `{"jwt":"theirs"}`, nil, nil}, "evil.example", true, 400, `"M_INVALID_PARAM"`, 0},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorldWith(t, db, func(o *focus.Options) { required(o); o.Remote = &c.peer })
				w.members.in = map[string]bool{"!roomid:example.com @ana:own.example": c.in, "!roomid:example.com friend.example": true}
				status, body := proxied.ask(t, w, remote(c.server))
				require.Equal(t, c.status, status, body)
				require.Contains(t, body, c.want)
				require.Len(t, c.peer.sent, c.sent)
				require.Empty(t, w.signed)
				require.Empty(t, w.ensured)
				if status == http.StatusOK {
					require.Equal(t, `friend.example /_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token `+
						`{"user_id":"@ana:own.example","url":"wss://sfu.friend.example/prefix","room_id":"!roomid:example.com","slot_id":"m.call#ROOM","member_id":"m"}`, c.peer.sent[0])
				}
			})
		}
	})
}

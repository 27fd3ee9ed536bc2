package focus_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/focus"
	"passerelle/focus/matrixrtc"
	"passerelle/migrations/migrationstest"
)

// owners are whose SFUs are where.
type owners map[string][]string

func (o owners) Owners(address string) []string { return slices.Clone(o[address]) }

// TestRelayByURL: who names the SFU of another server and not the server is
// served by those who may have it and are in the room.
func TestRelayByURL(t *testing.T) {
	const (
		friends = "wss://sfu.friend.example/prefix"
		shared  = "wss://shared.example"
		room    = "!roomid:example.com "
		ana     = room + "@ana:own.example"
	)
	granted := peer{200, `{"jwt":"theirs"}`, nil, nil}
	known := owners{friends: {"friend.example"}, shared: {"away.example", "friend.example", "also.example"}, "wss://old.own.example": {"own.example"}}
	in := func(who ...string) map[string]bool {
		set := map[string]bool{}
		for _, w := range who {
			set[w] = true
		}
		return set
	}
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		for name, c := range map[string]struct {
			url    string
			peer   peer
			in     map[string]bool
			change func(*world)
			status int
			want   string
			to     string // the server that was asked, if one was
		}{
			"granted":               {friends, granted, in(ana, room+"friend.example"), nil, 200, `{"jwt":"theirs"}`, "friend.example"},
			"shared by several":     {shared, granted, in(ana, room+"friend.example", room+"also.example"), nil, 200, `{"jwt":"theirs"}`, "friend.example"},
			"forbidden there":       {friends, peer{403, `{"errcode":"M_FORBIDDEN","error":"no"}`, nil, nil}, in(ana, room+"friend.example"), nil, 403, `{"errcode":"M_FORBIDDEN","error":"no"}`, "friend.example"},
			"not theirs":            {friends, peer{400, `{"errcode":"M_INVALID_PARAM","error":"no"}`, nil, nil}, in(ana, room+"friend.example"), nil, 400, "M_INVALID_PARAM", "friend.example"},
			"too much for them":     {friends, peer{429, `{"errcode":"M_LIMIT_EXCEEDED"}`, nil, nil}, in(ana, room+"friend.example"), nil, 502, "M_UNKNOWN", "friend.example"},
			"an error there":        {friends, peer{500, `{"errcode":"M_UNKNOWN"}`, nil, nil}, in(ana, room+"friend.example"), nil, 502, "M_UNKNOWN", "friend.example"},
			"unreachable":           {friends, peer{0, `{}`, errors.New("SECRET"), nil}, in(ana, room+"friend.example"), nil, 502, "M_UNKNOWN", "friend.example"},
			"no service there":      {friends, peer{404, `{"errcode":"M_UNRECOGNIZED"}`, nil, nil}, in(ana, room+"friend.example"), nil, 404, "M_NOT_FOUND", "friend.example"},
			"nothing is carried":    {friends, peer{0, `{}`, focus.ErrNoRelay, nil}, in(ana, room+"friend.example"), nil, 404, "M_NOT_FOUND", "friend.example"},
			"the user is elsewhere": {friends, granted, in(room + "friend.example"), nil, 403, `"only members of the room may join its calls"`, ""},
			"a silent homeserver":   {friends, granted, in(ana), func(w *world) { w.members.silent = errors.New("SECRET") }, 502, "M_UNKNOWN", ""},
			"who may not join":      {friends, granted, in(ana, room+"friend.example"), func(w *world) { w.access["own.example"] = matrixrtc.Access{} }, 403, "M_FORBIDDEN", ""},
			"our own, of before":    {"wss://old.own.example", granted, in(ana, room+"own.example"), nil, 400, "M_INVALID_PARAM", ""},
			"an unknown one":        {"wss://unknown.example", granted, in(ana), nil, 400, `"url is not the address of a media server of this service"`, ""},
			"nobody's":              {"x", granted, in(ana), nil, 400, "M_INVALID_PARAM", ""},
			"ten thousand letters":  {"wss://" + strings.Repeat("a", 10<<10), granted, in(ana), nil, 400, "M_BAD_JSON", ""},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorldWith(t, db, func(o *focus.Options) { required(o); o.Remote, o.Owners = &c.peer, known })
				w.members.in = c.in
				if c.change != nil {
					c.change(w)
				}
				status, body := ways()[2].ask(t, w, strings.Replace(vouchedRequest, "wss://rtc.own.example/prefix", c.url, 1))
				require.Equal(t, c.status, status, body)
				require.Contains(t, body, c.want)
				require.NotContains(t, body, "SECRET")
				require.Empty(t, w.signed)
				if c.to == "" {
					require.Empty(t, c.peer.sent, "nothing went out")
					return
				}
				require.Equal(t, []string{c.to + ` /_matrix/federation/unstable/io.element.msc4195/rtc/livekit/get_token ` +
					`{"user_id":"@ana:own.example","url":"` + c.url + `","room_id":"!roomid:example.com","slot_id":"m.call#ROOM","member_id":"m"}`}, c.peer.sent)
			})
		}
	})
}

// TestRelayByURLAlone: other servers, and leaves, do not go this way, and
// without a homeserver to ask or to carry the client is told what to do.
func TestRelayByURLAlone(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		friend := &peer{200, `{"jwt":"theirs"}`, nil, nil}
		known := owners{"wss://sfu.friend.example": {"friend.example"}, "wss://u@sfu.friend.example": {"friend.example"}}
		with := func(change ...func(*focus.Options)) *world {
			return newWorldWith(t, db, func(o *focus.Options) {
				o.Remote, o.Owners = friend, known
				for _, c := range change {
					c(o)
				}
			})
		}
		foreign := strings.NewReplacer("rtc.own.example/prefix", "sfu.friend.example")
		proxied, federated := ways()[2], ways()[4]

		status, body := federated.ask(t, with(), foreign.Replace(federated.request))
		require.Equal(t, http.StatusBadRequest, status, body)
		status, body = with().hand(t, proxiedLeave, "@ana:own.example", delayed(foreign.Replace(vouchedRequest), `"delay_id":"d"`))
		require.Equal(t, http.StatusBadRequest, status, body)
		status, body = proxied.ask(t, with(func(o *focus.Options) { o.Owners = nil }), foreign.Replace(vouchedRequest))
		require.Equal(t, http.StatusBadRequest, status, body)
		status, body = proxied.ask(t, with(func(o *focus.Options) { o.Remote = nil }), foreign.Replace(vouchedRequest))
		require.Equal(t, http.StatusNotFound, status, body)
		require.Contains(t, body, "M_NOT_FOUND")
		named := strings.Replace(vouchedRequest, "{", `{"server_name":"friend.example",`, 1)
		for _, url := range []string{"wss://u@sfu.friend.example", "file:///etc/passwd", "https://sfu.friend.example", "wss://sfu.friend.example?x", "x"} {
			status, body = proxied.ask(t, with(), strings.Replace(named, "wss://rtc.own.example/prefix", url, 1))
			require.Equal(t, http.StatusBadRequest, status, body)
			require.Contains(t, body, `"url is not the address of a media server"`)
		}
		require.Empty(t, friend.sent)

		// Where nobody is asked who is in the room, the first is taken.
		status, body = proxied.ask(t, with(), foreign.Replace(vouchedRequest))
		require.Equal(t, http.StatusOK, status, body)
		require.Len(t, friend.sent, 1)
	})
}

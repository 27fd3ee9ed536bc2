package homeserver_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"passerelle/focus/homeserver"
)

const (
	probePath   = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/passerelle"
	probeAnswer = `{"passerelle":true}`
)

// homeserverOf answers as a homeserver would that is set up for us, but for what
// a case says: by the end of the path, a status and a body.
func homeserverOf(said map[string]string) *fake {
	well := map[string]string{
		"/versions":       `200 {"versions":["v1.11"],"unstable_features":{"org.matrix.msc4140":true,"org.matrix.msc4354":true}}`,
		"/rtc/transports": `200 {"rtc_transports":[{"type":"other"},{"type":"livekit","livekit_service_url":"https://rtc.example","url":"wss://rtc.example","more":1}]}`,
		"/whoami":         `200 {"user_id":"@_passerelle_focus:hs.example"}`,
		"/is_joined":      `200 {"joined":false}`,
		probePath:         "200 " + probeAnswer,
	}
	return &fake{open: true, answer: func(r *http.Request) (int, string) {
		for end, answer := range well {
			if !strings.HasSuffix(r.URL.Path, end) {
				continue
			}
			if other, ok := said[end]; ok {
				answer = other
			}
			// Only what is open to everybody is asked without our token: there
			// Synapse refuses one that it does not know.
			if shown := r.Header.Get("Authorization") != ""; shown == (end == "/versions") {
				answer = "401 {}"
			}
			status, body, _ := strings.Cut(answer, " ")
			number, err := strconv.Atoi(status)
			if err != nil {
				return http.StatusInternalServerError, ""
			}
			return number, body
		}
		return http.StatusTeapot, ""
	}}
}

// TestCheck: each thing that is missing is said, with what it costs and what
// mends it, in one line.
func TestCheck(t *testing.T) {
	const unrecognised = `404 {"errcode":"M_UNRECOGNIZED"}`
	down := map[string]string{"/versions": "0 refused"}
	unverified := func(o *homeserver.CheckOptions) { o.Unverified = true }
	byUs := func(o *homeserver.CheckOptions) { o.AnnouncedByUs = true }
	type said = map[string]string
	for name, c := range map[string]struct {
		said  said
		with  func(*homeserver.CheckOptions)
		costs string // in the one finding that counts; empty for none
		mend  string
	}{
		"all is well":     {},
		"malformed probe": {said: said{"/is_joined": "400 {}"}},
		"no delayed events": {said: said{"/versions": `200 {"versions":["v1.11"],"unstable_features":{"org.matrix.msc4354":true}}`},
			costs: "no leaves are taken over", mend: "max_event_delay_duration: 24h"},
		"no sticky events": {said: said{"/versions": `200 {"versions":["v1.11"],"unstable_features":{"org.matrix.msc4140":true}}`},
			costs: "matrix_2_0", mend: "msc4354_enabled: true"},
		"nothing announced":        {said: said{"/rtc/transports": unrecognised}, costs: "find no media server", mend: "msc4143_enabled: true"},
		"an empty list":            {said: said{"/rtc/transports": "200 {}"}, costs: "find no media server", mend: "matrix_rtc.transports"},
		"another slash":            {said: said{"/rtc/transports": `200 {"rtc_transports":[{"type":"livekit","livekit_service_url":"https://rtc.example/","url":"wss://rtc.example"}]}`}, costs: "letter by letter", mend: "matrix_rtc.transports"},
		"the older half":           {said: said{"/rtc/transports": `200 {"rtc_transports":[{"type":"livekit","livekit_service_url":"https://rtc.example"}]}`}, costs: "letter by letter", mend: "matrix_rtc.transports"},
		"announced by us":          {said: said{"/rtc/transports": unrecognised}, with: byUs},
		"an address unknown to us": {said: said{"/rtc/transports": unrecognised}, with: func(o *homeserver.CheckOptions) { o.Transports = homeserver.Transports{} }},
		"announced by us alone":    {said: said{"/rtc/transports": "200 {}"}, with: byUs},
		"announced by both":        {said: said{"/rtc/transports": `200 {"rtc_transports":[{"type":"livekit","livekit_service_url":"https://old.example"}]}`}, with: byUs, costs: "letter by letter", mend: "matrix_rtc.transports"},
		"scope missing":            {said: said{"/is_joined": `403 {"errcode":"M_FORBIDDEN"}`}, costs: "nobody gets a token", mend: "io.element.msc4502.scopes"},
		"question not offered":     {said: said{"/is_joined": unrecognised}, costs: "nobody gets a token", mend: "msc4502_enabled: true"},
		"not offered, not asked":   {said: said{"/is_joined": unrecognised}, with: unverified, costs: "whoever knows a room's ID", mend: "msc4502_enabled: true"},
		"offered and not asked":    {with: unverified, costs: "whoever knows a room's ID", mend: "focus.membership: required"},
		"does not say":             {said: said{"/is_joined": "500 {}"}, costs: "nobody gets a token", mend: "its log"},
		"not registered":           {said: said{"/whoami": `401 {"errcode":"M_UNKNOWN_TOKEN"}`, "/rtc/transports": "401 {}", "/is_joined": "401 {}", probePath: "401 {}"}, costs: "nobody gets a token", mend: "app_service_config_files"},
		"another name":             {said: said{"/whoami": `200 {"user_id":"@_passerelle_focus:example"}`}, costs: "refused who ask through it", mend: `homeserver.server_name: "example"`},
		"with a port":              {said: said{"/whoami": `200 {"user_id":"@_passerelle_focus:hs.example:8448"}`}, costs: "refused", mend: `homeserver.server_name: "hs.example:8448"`},
		"no name":                  {said: said{"/whoami": `200 {}`}},
		"a name that is none":      {said: said{"/whoami": `200 {"user_id":"@x:\u001b[2J"}`}},
		"nobody's name":            {said: said{"/whoami": `200 {"user_id":"@x:y"}`}, with: func(o *homeserver.CheckOptions) { o.ServerName = "" }},
		"prefix not claimed":       {said: said{probePath: unrecognised}, costs: "through their homeserver", mend: "io.element.msc4512.proxy_prefix: rtc/livekit"},
		"wrong hs_token":           {said: said{probePath: `403 {"errcode":"M_FORBIDDEN"}`}, costs: "through their homeserver", mend: "homeserver.hs_token"},
		"somebody else":            {said: said{probePath: `200 {"jwt":"x"}`}, costs: "through their homeserver", mend: "proxy_url"},
		"not reached":              {said: said{probePath: `500 {"errcode":"M_UNKNOWN"}`}, costs: "through their homeserver", mend: "is Passerelle running?"},
		"limited":                  {said: said{probePath: `429 {"errcode":"M_LIMIT_EXCEEDED"}`}, costs: "busy call", mend: "rate_limited: false"},
		"nothing handed over":      {said: said{probePath: unrecognised, "/rtc/transports": `200 {"rtc_transports":[{"type":"livekit","livekit_service_url":"https://rtc.example"}]}`}, with: func(o *homeserver.CheckOptions) { o.Proxied, o.Transports.Proxied = false, false }},
		"a url for nothing":        {with: func(o *homeserver.CheckOptions) { o.Proxied, o.Transports.Proxied = false, false }, costs: "letter by letter", mend: "matrix_rtc.transports"},
		"down":                     {said: down, costs: "nobody gets a token", mend: "homeserver.url"},
		"something else":           {said: said{"/versions": "200 <html>"}, costs: "nobody gets a token", mend: "homeserver.url"},
		"its versions are refused": {said: said{"/versions": "401 {}"}, costs: "nobody gets a token", mend: "homeserver.url"},
	} {
		t.Run(name, func(t *testing.T) {
			o := homeserver.CheckOptions{ServerName: "hs.example", Proxied: true, ProbePath: probePath, ProbeAnswer: probeAnswer,
				Transports: homeserver.Transports{ServiceURL: "https://rtc.example", Proxied: true}}
			if c.with != nil {
				c.with(&o)
			}
			client := homeserver.NewClient(homeserver.Options{URL: "http://hs.example", Token: "as-token", Transport: homeserverOf(c.said)})
			findings, answered := client.Check(t.Context(), o)
			require.Equal(t, c.mend != "homeserver.url", answered)
			counting, unseen := split(findings)
			require.Equal(t, answered && o.Proxied, len(unseen) == 1 && strings.Contains(unseen[0], "rc_message: {"),
				"its limit of users is named where requests are to come through it")
			if c.costs == "" {
				require.Empty(t, counting)
				return
			}
			require.Len(t, counting, 1)
			require.Contains(t, counting[0], c.costs)
			require.Contains(t, counting[0], c.mend)
			require.NotContains(t, counting[0], "as-token")
			require.NotContains(t, counting[0], "\n")
		})
	}
}

// split tells findings that count from those that nobody can see.
func split(findings []homeserver.Finding) (counting, unseen []string) {
	for _, f := range findings {
		if f.Unseen {
			unseen = append(unseen, f.String())
		} else {
			counting = append(counting, f.String())
		}
	}
	return counting, unseen
}

// TestCheckWithoutToken: what a homeserver tells everybody is asked all the same.
func TestCheckWithoutToken(t *testing.T) {
	f := homeserverOf(map[string]string{"/versions": `200 {"versions":["v1.11"]}`, "/rtc/transports": `401 {"errcode":"M_MISSING_TOKEN"}`,
		"/whoami": "401 {}", "/is_joined": "401 {}", probePath: "401 {}"})
	client := homeserver.NewClient(homeserver.Options{URL: "http://hs.example", Transport: f})
	findings, answered := client.Check(t.Context(), homeserver.CheckOptions{Unverified: true, Proxied: true, ProbePath: probePath, ProbeAnswer: probeAnswer})
	require.True(t, answered)
	counting, unseen := split(findings)
	require.Len(t, counting, 3)
	require.Contains(t, counting[0], "max_event_delay_duration")
	require.Contains(t, counting[1], "msc4354_enabled")
	require.Contains(t, counting[2], "homeserver.as_token_file")
	require.Len(t, unseen, 1)
}

// TestRegistration holds the file against the keys that Synapse reads: it
// ignores others without a word.
func TestRegistration(t *testing.T) {
	text, err := homeserver.Registration{ASToken: "as", HSToken: "hs", ProxyURL: "http://127.0.0.1:8090"}.YAML()
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, yaml.Unmarshal(text, &got))
	require.Equal(t, map[string]any{
		"id": "passerelle_focus", "url": nil, "as_token": "as", "hs_token": "hs", "sender_localpart": "_passerelle_focus",
		"rate_limited": false, "namespaces": map[string]any{"users": []any{}, "aliases": []any{}, "rooms": []any{}},
		"io.element.msc4502.scopes":       []any{"urn:matrix:client:io.element.msc4502:rooms:is_joined"},
		"io.element.msc4512.proxy_prefix": "rtc/livekit", "io.element.msc4512.proxy_url": "http://127.0.0.1:8090",
	}, got)
	text, err = homeserver.Registration{ASToken: "as", HSToken: "hs"}.YAML()
	require.NoError(t, err)
	require.NotContains(t, string(text), "msc4512", "half of the pair aborts Synapse's start")
	require.Contains(t, string(text), "\nurl: null\n", "it must be there")
}

package homeserver_test

import (
	"net/http"
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

// TestCheck: each thing that is missing is said, with what mends it.
func TestCheck(t *testing.T) {
	const features, joined = `{"versions":["v1.11"],"unstable_features":{"org.matrix.msc4140":true}}`, `{"joined":false}`
	for name, c := range map[string]struct {
		versions, membership, probe string // status and body
		want                        string // in the one finding; empty for none
		silent                      bool
	}{
		"all is well":          {"200 " + features, "200 " + joined, "200 " + probeAnswer, "", false},
		"malformed probe":      {"200 " + features, "400 {}", "200 " + probeAnswer, "", false},
		"down":                 {"0 refused", "0 refused", "0 refused", "homeserver.url", true},
		"something else":       {"200 <html>", "404 {}", "404 {}", "homeserver.url", true},
		"no delayed events":    {`200 {"versions":["v1.11"]}`, "200 " + joined, "200 " + probeAnswer, "max_event_delay_duration: 24h", false},
		"scope missing":        {"200 " + features, `403 {"errcode":"M_FORBIDDEN"}`, "200 " + probeAnswer, "io.element.msc4502.scopes", false},
		"question not offered": {"200 " + features, `404 {"errcode":"M_UNRECOGNIZED"}`, "200 " + probeAnswer, "msc4502_enabled: true", false},
		"not registered":       {"200 " + features, `401 {"errcode":"M_UNKNOWN_TOKEN"}`, `401 {}`, "app_service_config_files", false},
		"prefix not claimed":   {"200 " + features, "200 " + joined, `404 {"errcode":"M_UNRECOGNIZED"}`, "io.element.msc4512.proxy_prefix: rtc/livekit", false},
		"wrong hs_token":       {"200 " + features, "200 " + joined, `403 {"errcode":"M_FORBIDDEN"}`, "homeserver.hs_token", false},
		"somebody else":        {"200 " + features, "200 " + joined, `200 {"jwt":"x"}`, "proxy_url", false},
		"not reached":          {"200 " + features, "200 " + joined, `500 {"errcode":"M_UNKNOWN"}`, "is Passerelle running?", false},
		"limited":              {"200 " + features, "200 " + joined, `429 {"errcode":"M_LIMIT_EXCEEDED"}`, "rate_limited: false", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{answer: func(r *http.Request) (int, string) {
				answer := c.membership
				switch {
				case strings.HasSuffix(r.URL.Path, "/versions"):
					answer = c.versions
				case strings.HasSuffix(r.URL.Path, probePath):
					answer = c.probe
				}
				status, body, _ := strings.Cut(answer, " ")
				return map[string]int{"0": 0, "200": 200, "400": 400, "401": 401, "403": 403, "404": 404, "429": 429, "500": 500}[status], body
			}}
			client := homeserver.NewClient(homeserver.Options{URL: "http://hs.example", Token: "as-token", Transport: f})
			findings, answered := client.Check(t.Context(), homeserver.CheckOptions{Proxied: true, ProbePath: probePath, ProbeAnswer: probeAnswer})
			require.Equal(t, !c.silent, answered)
			if c.want == "" {
				require.Empty(t, findings)
				return
			}
			require.Len(t, findings, 1)
			require.Contains(t, findings[0].String(), c.want)
			require.NotContains(t, findings[0].String(), "as-token")
		})
	}
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

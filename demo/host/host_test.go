package host_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"passerelle/demo/host"
)

var agnes = host.Session{
	Homeserver:  "http://127.0.0.11:8008/",
	UserID:      "@agnes:interieur.test",
	DeviceID:    "AGNES",
	AccessToken: "syt_demo",
	RoomID:      "!room",
	Ministry:    "Ministère de l'Intérieur",
}

// dist makes a folder as a build leaves it, each file holding its own name.
func dist(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{
		"index.html", "app.js", "style.css", "pkg/matrix_sdk_crypto_wasm_bg.wasm",
		"ec/index.html", "ec/config.json", "ec/assets/font.woff2", "ec/assets/model.tflite",
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(name), 0o644))
	}
	config := `{"matrix_rtc_session":{"wait_for_key_rotation_ms":5000},"media_quality":{"video_codec":"vp9"}}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ec/config.json"), []byte(config), 0o644))
	return dir
}

func get(t *testing.T, h http.Handler, method, path string) (*http.Response, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	body, err := io.ReadAll(w.Result().Body)
	require.NoError(t, err)
	return w.Result(), string(body)
}

func TestServesWhatWasBuilt(t *testing.T) {
	dir := dist(t)
	h, err := host.Handler(host.Options{Dist: dir, Sessions: map[string]host.Session{"agnes": agnes}})
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir), "what was read is served, whatever happens to the folder")

	for path, want := range map[string]struct {
		status      int
		contentType string
		body        string
	}{
		"/":                        {200, "text/html; charset=utf-8", "index.html"},
		"/app.js":                  {200, "text/javascript; charset=utf-8", "app.js"},
		"/style.css":               {200, "text/css; charset=utf-8", "style.css"},
		"/ec/index.html":           {200, "text/html; charset=utf-8", "ec/index.html"},
		"/ec/assets/font.woff2":    {200, "font/woff2", "ec/assets/font.woff2"},
		"/ec/assets/model.tflite":  {200, "application/octet-stream", "ec/assets/model.tflite"},
		"/ec/assets/":              {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/ec":                      {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/pkg/":                    {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/session/":                {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/session/bruno.json":      {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/host_test.go":            {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/%2e%2e/etc/passwd":       {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/ec/..%2f..%2fetc/passwd": {404, "text/plain; charset=utf-8", "404 page not found\n"},
		"/pkg/matrix_sdk_crypto_wasm_bg.wasm": {
			200, "application/wasm", "pkg/matrix_sdk_crypto_wasm_bg.wasm",
		},
	} {
		t.Run(path, func(t *testing.T) {
			res, body := get(t, h, http.MethodGet, path)
			if res.StatusCode == http.StatusMovedPermanently || res.StatusCode == http.StatusTemporaryRedirect {
				require.Equal(t, 404, want.status)
				res, body = get(t, h, http.MethodGet, res.Header.Get("Location"))
			}
			require.Equal(t, want.status, res.StatusCode)
			require.Equal(t, want.contentType, res.Header.Get("Content-Type"))
			require.Equal(t, want.body, body)
		})
	}
	res, _ := get(t, h, http.MethodPost, "/app.js")
	require.Equal(t, http.StatusMethodNotAllowed, res.StatusCode)
}

func TestPoliciesDiffer(t *testing.T) {
	h, err := host.Handler(host.Options{Dist: dist(t), Sessions: map[string]host.Session{"agnes": agnes}})
	require.NoError(t, err)

	page, _ := get(t, h, http.MethodGet, "/")
	policy := page.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "connect-src 'self' http://127.0.0.11:8008; ")
	require.Contains(t, policy, "frame-ancestors 'none'")
	require.NotContains(t, policy, "unsafe-inline")

	call, _ := get(t, h, http.MethodGet, "/ec/index.html")
	policy = call.Header.Get("Content-Security-Policy")
	require.Contains(t, policy, "frame-ancestors 'self'")
	require.Contains(t, policy, "wss:")
	require.Equal(t, "nosniff", call.Header.Get("X-Content-Type-Options"))
}

func TestSessionAndConfig(t *testing.T) {
	for name, test := range map[string]struct {
		opts host.Options
		want string
	}{
		"as it comes": {host.Options{}, `{
			"matrix_rtc_mode": "compatibility",
			"matrix_rtc_session": {"wait_for_key_rotation_ms": 5000},
			"media_quality": {"video_codec": "vp9"}
		}`},
		"small pictures, sticky events": {host.Options{Mode: host.Matrix2, LowQuality: true}, `{
			"matrix_rtc_mode": "matrix_2_0",
			"matrix_rtc_session": {"wait_for_key_rotation_ms": 5000},
			"media_quality": {"video": {
				"max_resolution": 180, "max_framerate": 5, "max_bitrate": 100000, "simulcast_layers": []
			}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			test.opts.Dist = dist(t)
			test.opts.Sessions = map[string]host.Session{"agnes": agnes}
			h, err := host.Handler(test.opts)
			require.NoError(t, err)

			res, body := get(t, h, http.MethodGet, "/ec/config.json")
			require.JSONEq(t, test.want, body)
			require.Equal(t, "application/json", res.Header.Get("Content-Type"))

			res, body = get(t, h, http.MethodGet, "/session/agnes.json")
			require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
			require.Empty(t, res.Header.Get("Access-Control-Allow-Origin"), "no other page may read a token")
			var got host.Session
			require.NoError(t, json.Unmarshal([]byte(body), &got))
			require.Empty(t, cmp.Diff(agnes, got))
		})
	}
}

func TestMistakesAreNamedTogether(t *testing.T) {
	dir := dist(t)
	require.NoError(t, os.Remove(filepath.Join(dir, "app.js")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ec/config.json"), []byte("{"), 0o644))
	_, err := host.Handler(host.Options{
		Dist: dir,
		Mode: "legacy",
		Sessions: map[string]host.Session{
			"Agnès": agnes,
			"bruno": {Homeserver: "127.0.0.12"},
		},
	})
	require.ErrorContains(t, err, `no mode "legacy"`)
	require.ErrorContains(t, err, `session "Agnès"`)
	require.ErrorContains(t, err, `session "bruno"`)
	require.ErrorContains(t, err, "has no app.js")
	require.ErrorContains(t, err, "Element Call's own configuration")

	_, err = host.Handler(host.Options{Dist: filepath.Join(dir, "nowhere")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestLink(t *testing.T) {
	for want, got := range map[string]string{
		"http://127.0.0.11:8080/?lang=fr#agnes":        host.Link("http://127.0.0.11:8080", "agnes", "fr", false),
		"http://127.0.0.11:8080/?auto=1&lang=en#bruno": host.Link("http://127.0.0.11:8080/", "bruno", "en", true),
	} {
		require.Equal(t, want, got)
	}
}

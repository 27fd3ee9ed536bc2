package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// contentTypes does not ask the machine, whose own table may know no wasm.
var contentTypes = map[string]string{
	".css":   "text/css; charset=utf-8",
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".json":  "application/json",
	".mp3":   "audio/mpeg",
	".ogg":   "audio/ogg",
	".png":   "image/png",
	".svg":   "image/svg+xml",
	".txt":   "text/plain; charset=utf-8",
	".wasm":  "application/wasm",
	".webp":  "image/webp",
	".woff":  "font/woff",
	".woff2": "font/woff2",
}

// callPolicy is for Element Call, which has scripts in its page, and goes
// wherever the members of a call say that their media are.
const callPolicy = "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; " +
	"worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; " +
	"img-src 'self' data: blob: http: https:; media-src 'self' data: blob: mediastream:; " +
	"connect-src 'self' data: blob: http: https: ws: wss:; object-src 'none'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'self'"

// pagePolicy is for our own page: it speaks to the homeservers and to nobody
// else.
func pagePolicy(homeservers []string) string {
	return "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src data:; " +
		"connect-src " + strings.Join(append([]string{"'self'"}, homeservers...), " ") + "; frame-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

type policies struct{ page, call string }

// files serves the built folder from memory, so that nothing outside it can
// be reached and nothing changes under a running call.
type files struct {
	content  map[string][]byte
	policies policies
	started  time.Time
}

// required is what a build leaves, whatever the versions.
var required = []string{"index.html", "app.js", "style.css", "pkg/matrix_sdk_crypto_wasm_bg.wasm", "ec/index.html"}

// newFiles reads the folder. With an error it returns what it could read.
func newFiles(dist string, p policies) (*files, error) {
	f := &files{content: map[string][]byte{}, policies: p, started: time.Now()}
	root := os.DirFS(dist)
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f.content[name], err = fs.ReadFile(root, name)
		return err
	})
	if err != nil {
		return f, fmt.Errorf("reading what was built: %w", err)
	}
	var missing []error
	for _, name := range required {
		if _, ok := f.content[name]; !ok {
			missing = append(missing, fmt.Errorf("%s has no %s: it was not built, or not to the end", dist, name))
		}
	}
	return f, errors.Join(missing...)
}

func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if r.URL.Path == "/" {
		name = "index.html"
	}
	content, ok := f.content[name]
	if !ok || name != "index.html" && "/"+name != r.URL.Path {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	harden(h)
	contentType, ok := contentTypes[path.Ext(name)]
	if !ok {
		contentType = "application/octet-stream"
	}
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache")
	policy := f.policies.page
	if strings.HasPrefix(name, "ec/") {
		policy = f.policies.call
	}
	h.Set("Content-Security-Policy", policy)
	http.ServeContent(w, r, name, f.started, bytes.NewReader(content))
}

// harden sets what every answer has.
func harden(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

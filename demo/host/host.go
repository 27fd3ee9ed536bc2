// Package host serves the page that hosts Element Call: who one is, in which
// room, who is in the call, and the call itself in a frame. The page is built
// from the folder web; this package serves what was built, Element Call's
// configuration and the launch data of the demonstration's accounts.
//
// It never speaks to a homeserver: the page does. It hands access tokens to
// whoever asks, so it is for accounts of a demonstration on loopback only.
// Everything it holds is read once and never changes: it is safe for
// concurrent use.
package host

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Mode is how Element Call publishes that somebody is in the call.
type Mode string

const (
	// Compatibility uses state events: Element Call's default.
	Compatibility Mode = "compatibility"
	// Matrix2 uses sticky events (MSC4354).
	Matrix2 Mode = "matrix_2_0"
)

// Session is the launch data of one account.
type Session struct {
	Homeserver  string `json:"homeserver"` // base URL of the client-server API
	UserID      string `json:"userId"`
	DeviceID    string `json:"deviceId"`
	AccessToken string `json:"accessToken"`
	RoomID      string `json:"roomId"`
	Ministry    string `json:"ministry"` // for people: "Ministère de l'Intérieur"
}

// Options says what is served.
type Options struct {
	// Dist is the folder that `npm run build` wrote. Handler reads it all.
	Dist string
	// Mode is Element Call's; empty is Compatibility.
	Mode Mode
	// LowQuality asks for small pictures, so that two browsers fit two cores.
	LowQuality bool
	// Sessions by the name that Link is given: lower-case letters, digits and
	// hyphens.
	Sessions map[string]Session
}

var sessionName = regexp.MustCompile(`^[a-z0-9-]+$`)

// Handler serves the page, /session/NAME.json, Element Call under /ec/ and its
// configuration. It fails when the folder was not built or an option is wrong,
// and names all that is.
func Handler(opts Options) (http.Handler, error) {
	var problems []error
	switch opts.Mode {
	case "", Compatibility, Matrix2:
	default:
		problems = append(problems, fmt.Errorf("there is no mode %q", opts.Mode))
	}
	mux := http.NewServeMux()
	var homeservers []string
	for name, s := range opts.Sessions {
		u, err := url.Parse(s.Homeserver)
		if !sessionName.MatchString(name) || err != nil || u.Host == "" {
			problems = append(problems, fmt.Errorf("session %q: its name or its homeserver %q cannot be used", name, s.Homeserver))
			continue
		}
		homeservers = append(homeservers, u.Scheme+"://"+u.Host)
		serveJSON(mux, "/session/"+name+".json", s)
	}
	slices.Sort(homeservers)
	pages := policies{page: pagePolicy(slices.Compact(homeservers)), call: callPolicy}
	files, err := newFiles(opts.Dist, pages)
	if err != nil {
		problems = append(problems, err)
	}
	config, err := callConfig(files.content["ec/config.json"], opts)
	if err != nil {
		problems = append(problems, err)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("host page: %w", err)
	}
	serveJSON(mux, "/ec/config.json", config)
	mux.Handle("GET /", files)
	return mux, nil
}

// Link is the address of a session's page. base is where Handler is served,
// lang is "fr" or "en". With auto the page joins the call by itself, and sends
// sound as the microphone gives it.
func Link(base, name, lang string, auto bool) string {
	query := url.Values{"lang": {lang}}
	if auto {
		query.Set("auto", "1")
	}
	return strings.TrimSuffix(base, "/") + "/?" + query.Encode() + "#" + name
}

// serveJSON answers GET on path with v, which must not be kept by anybody.
func serveJSON(mux *http.ServeMux, path string, v any) {
	body, err := json.Marshal(v)
	if err != nil { // only plain structs and maps come here
		panic(fmt.Sprintf("host: %s: %v", path, err))
	}
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		harden(w.Header())
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(body)
	})
}

// callConfig is Element Call's config.json: the one of its package, with what
// the options change.
func callConfig(packaged []byte, opts Options) (map[string]any, error) {
	config := map[string]any{}
	if len(packaged) > 0 {
		if err := json.Unmarshal(packaged, &config); err != nil {
			return nil, fmt.Errorf("reading Element Call's own configuration: %w", err)
		}
	}
	config["matrix_rtc_mode"] = cmp.Or(opts.Mode, Compatibility)
	if opts.LowQuality {
		config["media_quality"] = map[string]any{"video": map[string]any{
			"max_resolution":   180,
			"max_framerate":    5,
			"max_bitrate":      100_000,
			"simulcast_layers": []any{},
		}}
	}
	return config, nil
}

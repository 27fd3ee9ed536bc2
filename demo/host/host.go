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

import "net/http"

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
	// Dist is the folder that `npm run build` wrote.
	Dist string
	// Mode is Element Call's; empty is Compatibility.
	Mode Mode
	// LowQuality asks for small pictures, so that two browsers fit two cores.
	LowQuality bool
	// Sessions by the name that Link is given. The page of a session is
	// reached by that name alone.
	Sessions map[string]Session
}

// Handler serves the page, /session/NAME.json and Element Call under /ec/.
func Handler(opts Options) (http.Handler, error) { return http.NotFoundHandler(), nil }

// Link is the address of a session's page. base is where Handler is served,
// lang is "fr" or "en". With auto the page joins the call by itself.
func Link(base, name, lang string, auto bool) string { return base }

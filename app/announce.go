package app

import (
	"fmt"
	"net/http"
	"os"

	"passerelle/config"
	"passerelle/focus/homeserver"
)

// Transports is what clients are told of our service, whoever tells them.
func Transports(c *config.Config) homeserver.Transports {
	return homeserver.Transports{
		ServiceURL: c.Server.PublicURL, ServerName: c.Homeserver.ServerName, Proxied: c.Homeserver.Listen != "",
	}
}

// announcements are the routes on which we tell it in the homeserver's stead.
// The answers are the same for everybody and no secret, so nobody has to prove
// who they are: the access token that clients show is not looked at.
func announcements(c *config.Config) (routes []publicRoute, err error) {
	add := func(body []byte, paths ...string) {
		for _, path := range paths {
			routes = append(routes, publicRoute{path, "GET, HEAD, OPTIONS", constant(body)})
		}
	}
	if c.Announce.Transports {
		answer, err := Transports(c).Answer()
		if err != nil {
			return nil, fmt.Errorf("announce.transports: %w", err)
		}
		add(answer, "/_matrix/client/v1/rtc/transports", "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports")
	}
	if file := c.Announce.WellKnownFile; file != "" {
		document, err := os.ReadFile(file) // it was a small one a moment ago
		if err == nil {
			document, err = Transports(c).WellKnown(document)
		}
		if err != nil {
			return nil, fmt.Errorf("announce.well_known_file: %w", err)
		}
		add(document, "/.well-known/matrix/client")
	}
	return routes, nil
}

// constant always gives the same answer.
func constant(body []byte) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, r *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD, OPTIONS")
			w.WriteHeader(http.StatusMethodNotAllowed)
			_, _ = w.Write([]byte(`{"errcode":"M_UNRECOGNIZED","error":"this is asked with GET"}`))
			return
		}
		_, _ = w.Write(body)
	}
}

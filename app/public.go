package app

import (
	"cmp"
	"net/http"
	"path"
	"runtime/debug"
	"strings"

	"github.com/rs/zerolog"

	"passerelle/focus"
	"passerelle/focus/door"
)

// public is the handler of the public listener. It finds the route by the end
// of the path: clients append it to whatever address was announced, reverse
// proxies strip the prefix of that address or leave it, and a trailing slash
// in it makes two.
type public struct {
	// prefix is the path of the public address, "/" if it has none.
	prefix  string
	proxies proxies
	routes  []publicRoute
	cors    corsHeaders
	log     zerolog.Logger
}

// corsHeaders are what browsers are told of the routes.
type corsHeaders struct {
	// post are the methods of routes for tokens.
	post string
	// headers may be sent.
	headers string
	// maxAge, in seconds, is how long that may be remembered.
	maxAge string
}

type publicRoute struct {
	path string
	// methods is empty for the routes of tokens.
	methods string
	serve   func(w http.ResponseWriter, r *http.Request, route string)
}

// newPublic returns the handler. Without signalling there are no routes for it.
func newPublic(prefix string, trusted proxies, tokens *focus.Service, signalling *door.Door, log zerolog.Logger, more ...publicRoute) *public {
	p := &public{prefix: path.Clean("/" + prefix), proxies: trusted, log: log, cors: corsHeaders{
		post:    "POST, OPTIONS",
		headers: "Accept, Authorization, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, X-Requested-With",
		maxAge:  "3600",
	}}
	p.routes = more
	for _, route := range focus.Routes {
		p.routes = append(p.routes, publicRoute{route, "", tokens.Serve})
	}
	if signalling == nil {
		return p
	}
	for _, route := range door.Routes {
		p.routes = append(p.routes, publicRoute{route, "GET, OPTIONS", signalling.Serve})
	}
	return p
}

// ServeHTTP implements [http.Handler]. Every answer has the CORS headers: a
// browser shows a script neither the status nor the body of one without.
func (p *public) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("X-Content-Type-Options", "nosniff")
	defer p.recovered(w, r)
	r.RemoteAddr = p.proxies.client(r)
	asked := path.Clean("/" + r.URL.Path)
	route, known := p.find(asked)
	switch {
	case known:
		header.Set("Access-Control-Allow-Methods", cmp.Or(route.methods, p.cors.post))
		header.Set("Access-Control-Allow-Headers", p.cors.headers)
		if route.methods == "" {
			header.Set("Content-Type", "application/json")
		}
		if r.Method == http.MethodOptions {
			if p.cors.maxAge != "" {
				header.Set("Access-Control-Max-Age", p.cors.maxAge)
			}
			w.WriteHeader(http.StatusOK)
			return
		}
		route.serve(w, r, route.path)
	case (r.Method == http.MethodHead || r.Method == http.MethodOptions) && (asked == "/" || asked == p.prefix):
		// LiveKit's clients warm up the connection with it.
		header.Set("Access-Control-Allow-Methods", "HEAD, OPTIONS")
		w.WriteHeader(http.StatusOK)
	default:
		header.Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errcode":"M_UNRECOGNIZED","error":"no such route"}`))
	}
}

// find returns the route whose path the asked one ends in. No route's path is
// the end of another's.
func (p *public) find(asked string) (publicRoute, bool) {
	for _, route := range p.routes {
		if strings.HasSuffix(asked, route.path) {
			return route, true
		}
	}
	return publicRoute{}, false
}

// recovered turns a panic into an answer, and a line in the log that says
// where. The value of the panic may hold a request's data and is not logged.
func (p *public) recovered(w http.ResponseWriter, r *http.Request) {
	switch recover() {
	case nil:
	case http.ErrAbortHandler:
		panic(http.ErrAbortHandler)
	default:
		p.log.Error().Bytes("stack", debug.Stack()).Str("method", r.Method).Msg("A request handler panicked")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"errcode":"M_UNKNOWN","error":"the service failed"}`))
	}
}

package main

import (
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/coder/websocket"
)

// serveEcho is an SFU that has every room and nobody in it, and sends back
// whatever it is told on its signalling. It is a process of its own, so that what it costs can be
// told apart. It takes its listener as its third file.
func serveEcho() error {
	listener, err := net.FileListener(os.NewFile(inherited, "listener"))
	if err != nil {
		return err
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/GetParticipant") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"code":"not_found","msg":"no such participant"}`))
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/rtc") {
			w.Header().Set("Content-Type", "application/protobuf")
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}))
}

package migrations_test

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

// TestAHoldWhilePostgresIsAway: it refuses connections for longer than from one look
// to the next, as while it is restarted.
func TestAHoldWhilePostgresIsAway(t *testing.T) {
	uri, err := url.Parse(migrationstest.Postgres(t).URI)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", filepath.Join(uri.Query().Get("host"), ".s.PGSQL.5432"))
			if err != nil {
				_ = client.Close()
				return
			}
			mu.Lock()
			conns = append(conns, client, server)
			mu.Unlock()
			go func() { _, _ = io.Copy(client, server) }()
			go func() { _, _ = io.Copy(server, client) }()
		}
	}()
	h, err := migrations.HoldPostgres(t.Context(), holdOptions("postgres://postgres@"+listener.Addr().String()+uri.Path+"?sslmode=disable", true))
	require.NoError(t, err)
	h.Keep(t.Context())
	// PostgreSQL goes down.
	_ = listener.Close()
	mu.Lock()
	for _, c := range conns {
		_ = c.Close()
	}
	mu.Unlock()
	require.NotPanics(t, func() { h.Keep(t.Context()) }, "first look")
	require.NotPanics(t, func() { h.Keep(t.Context()) }, "second look, 5 s later")
	require.NotPanics(t, func() { h.Release() }, "the end of the process")
}

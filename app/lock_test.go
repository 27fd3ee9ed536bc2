package app_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/app"
	"passerelle/config"
	"passerelle/migrations"
	"passerelle/migrations/migrationstest"
)

// A second program on the same file, with ports of its own, as while containers
// are exchanged: it would take the leaves of the one that runs, and keep nobody's
// when it fails over something else.
func TestOneProgramHasTheDatabase(t *testing.T) {
	p := startProgram(t)
	c, err := config.Load(p.file, nil)
	require.NoError(t, err)
	_, err = app.New(t.Context(), app.Options{Config: c, Log: zerolog.Nop()})
	require.ErrorIs(t, err, migrations.ErrInUse)
	require.NoError(t, p.Stop())
	second, err := app.New(t.Context(), app.Options{Config: c, Log: zerolog.Nop()})
	require.NoError(t, err)
	require.NoError(t, second.Stop())
}

// On PostgreSQL, two with the media server inside would take each other's
// participants for gone, and so would one of them and one without.
func TestAnSFUInsideHasTheDatabaseAlone(t *testing.T) {
	uri := migrationstest.Postgres(t).URI
	start := func(livekit string, patience time.Duration) (*app.App, error) {
		p := &program{file: filepath.Join(t.TempDir(), "config.yaml")}
		p.write(t, fmt.Sprintf(`
server: {listen: "127.0.0.1:0", private_listen: "127.0.0.1:0", public_url: "http://127.0.0.1:8080", data_dir: %q}
database: {type: postgres, uri: %q}
livekit: %s
federation: {rules: [{server: "own.example", access: create}]}
focus: {membership: unverified}
`, t.TempDir(), uri, livekit))
		c, err := config.Load(p.file, nil)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return app.New(ctx, app.Options{Config: c, Log: zerolog.Nop()})
	}
	const inside = `{embedded: {port: 0, udp_port: 0, tcp_port: 0, node_ip: 127.0.0.1, loopback: true}}`
	outside := fmt.Sprintf(`{mode: external, url: "ws://127.0.0.1:1", key: %s, secret: %s}`, sfuKey, sfuSecret)
	first, err := start(inside, time.Minute)
	require.NoError(t, err)
	for _, livekit := range []string{inside, outside} {
		_, err := start(livekit, 500*time.Millisecond)
		require.ErrorIs(t, err, migrations.ErrInUse)
	}
	require.NoError(t, first.Stop())
	first, err = start(outside, time.Minute)
	require.NoError(t, err)
	second, err := start(outside, time.Minute)
	require.NoError(t, err, "they have one media server")
	require.NoError(t, second.Stop())
	require.NoError(t, first.Stop())
}

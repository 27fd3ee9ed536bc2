package app_test

import (
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/app"
	"passerelle/config"
	"passerelle/migrations"
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

package migrations_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/migrations"
)

func TestOneProcessHasTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "p.db")
	unlock, err := migrations.Lock(path)
	require.NoError(t, err)
	_, err = migrations.Lock(path)
	require.ErrorIs(t, err, migrations.ErrInUse)
	require.ErrorContains(t, err, path)
	other, err := migrations.Lock(path + "2")
	require.NoError(t, err)
	require.NoError(t, other())
	require.NoError(t, unlock())
	unlock, err = migrations.Lock(path)
	require.NoError(t, err)
	require.NoError(t, unlock())
}

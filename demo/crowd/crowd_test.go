package crowd_test

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/demo/crowd"
	"passerelle/demo/parts"
	"passerelle/demo/parts/partstest"
)

// TestCrowd is the small one of what `make soak-leaves` plays at length.
func TestCrowd(t *testing.T) {
	if testing.Short() {
		t.Skip("needs most of a minute")
	}
	options := crowd.Options{
		Python: partstest.Synapse(t), Clients: 60, AtOnce: 6, Seed: 1, Delay: 20 * time.Second, KillEvery: 5 * time.Second,
		Progress: func(line string) { t.Log(line) },
	}
	store, err := parts.Open(t.Output(), false)
	require.NoError(t, err)
	options.Logs = filepath.Join(store.Dir, "calls", t.Name())
	options.Binary = filepath.Join(t.TempDir(), "passerelle")
	compile := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", options.Binary, ".")
	compile.Dir = store.Root
	said, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", said)
	report, err := crowd.Run(t.Context(), options)
	if report != nil {
		t.Log("\n" + report.String())
	}
	require.NoError(t, err)
}

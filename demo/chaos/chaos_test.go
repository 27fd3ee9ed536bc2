package chaos_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/demo/chaos"
	"passerelle/demo/member"
	"passerelle/demo/parts"
	"passerelle/demo/parts/partstest"
	"passerelle/demo/town"
)

// The test binary is a member, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == member.Command {
		os.Exit(member.Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// TestChaos is the small one of what `make soak-chaos` plays at length.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a minute")
	}
	build := town.Options{Python: partstest.Synapse(t)}
	store, err := parts.Open(t.Output(), false)
	require.NoError(t, err)
	build.Binary = filepath.Join(t.TempDir(), "passerelle")
	compile := exec.CommandContext(t.Context(), "go", "build", "-o", build.Binary, ".")
	compile.Dir = store.Root
	said, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", said)
	world, err := town.Start(t.Context(), build)
	require.NoError(t, err)
	defer func() {
		if t.Failed() {
			out := filepath.Join(store.Dir, "calls", "chaos")
			require.NoError(t, os.MkdirAll(out, 0o755))
			require.NoError(t, world.KeepLogs(out))
		}
		require.NoError(t, world.Stop())
	}()
	report, err := chaos.Run(t.Context(), world, chaos.Options{
		Joins: 12, AtOnce: 12, Seed: 1, Stays: 20 * time.Second, KillEvery: 8 * time.Second,
		Progress: func(line string) { t.Log(line) },
	})
	if report != nil {
		t.Log("\n" + report.String())
	}
	require.NoError(t, err)
	require.Positive(t, report.Kills)
}

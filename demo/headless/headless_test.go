package headless_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"passerelle/demo/headless"
	"passerelle/demo/host"
	"passerelle/demo/parts"
	"passerelle/demo/parts/partstest"
	"passerelle/demo/town"
)

// TestCall makes a real call in every way that Element Call knows: two
// Synapses, two Passerelles, two SFUs, two browsers. What the browsers showed
// and, after a failure, said is kept in the folder of the parts.
func TestCall(t *testing.T) {
	if testing.Short() {
		t.Skip("needs half a minute a call")
	}
	build := town.Options{Python: partstest.Synapse(t), Web: partstest.Web(t), LowQuality: true}
	chromium := partstest.Chromium(t)
	store, err := parts.Open(t.Output(), false)
	require.NoError(t, err)
	build.Binary = filepath.Join(t.TempDir(), "passerelle")
	compile := exec.CommandContext(t.Context(), "go", "build", "-o", build.Binary, ".")
	compile.Dir = store.Root
	said, err := compile.CombinedOutput()
	require.NoError(t, err, "%s", said)

	for _, mode := range []host.Mode{host.Compatibility, host.Matrix2} {
		for _, encrypted := range []bool{false, true} {
			name := string(mode) + ", plain"
			if encrypted {
				name = string(mode) + ", encrypted"
			}
			t.Run(name, func(t *testing.T) {
				out := filepath.Join(store.Dir, "calls", name)
				require.NoError(t, os.MkdirAll(out, 0o755))
				build.Mode, build.Encrypted = mode, encrypted
				world, err := town.Start(t.Context(), build)
				require.NoError(t, err)
				defer func() { require.NoError(t, world.Stop()) }()
				report, err := headless.Run(t.Context(), world, headless.Options{
					Chromium: chromium, Out: out, Lang: "fr", Log: zerolog.Nop(),
				})
				t.Logf("\n%sseen by the other ministry: the button's leave after %s (aim %s), the killed browser's %s (aim %s) after LiveKit gave it up, which took %s",
					report.Timeline.String(), report.ButtonSeen, headless.ButtonAim, report.KillSeen, headless.KillAim, report.GivenUp)
				require.NoError(t, err)
				require.Len(t, report.Screenshots, 2)
			})
		}
	}
}

// Package partstest gives tests the real parts they need. With
// PASSERELLE_REQUIRE_PARTS=1, as in make test, a part that is missing is
// fetched, and the test fails when that fails; without it the test is skipped
// by the part's name.
package partstest

import (
	"context"
	"errors"
	"os"
	"testing"

	"passerelle/demo/parts"
)

// Synapse returns the Python that has Synapse.
func Synapse(t testing.TB) string { t.Helper(); return get(t, (*parts.Store).Synapse) }

// Dendrite returns Dendrite's program.
func Dendrite(t testing.TB) string { t.Helper(); return get(t, (*parts.Store).Dendrite) }

// Web returns the folder with the host page and Element Call.
func Web(t testing.TB) string { t.Helper(); return get(t, (*parts.Store).Web) }

// Chromium returns the browser's program.
func Chromium(t testing.TB) string { t.Helper(); return get(t, (*parts.Store).Chromium) }

// Postgres returns the folder of PostgreSQL's programs.
func Postgres(t testing.TB) string { t.Helper(); return get(t, (*parts.Store).Postgres) }

// Redis returns Redis' server program.
func Redis(t testing.TB) string { t.Helper(); return get(t, (*parts.Store).Redis) }

func get(t testing.TB, ask func(*parts.Store, context.Context) (string, error)) string {
	t.Helper()
	required := os.Getenv("PASSERELLE_REQUIRE_PARTS") == "1"
	store, err := parts.Open(t.Output(), required)
	if err != nil {
		t.Fatal(err)
	}
	path, err := ask(store, t.Context())
	switch {
	case err != nil && required:
		t.Fatal(err)
	case errors.Is(err, parts.ErrMissing):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	return path
}

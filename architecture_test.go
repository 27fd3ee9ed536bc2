package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// imports says which packages of ours each package may import. Imports point
// one way, from app down: bridge, focus and federation never meet but there.
var imports = map[string][]string{
	"":                          {"app", "config", "focus/homeserver", "focus/sfu/child"},
	"app":                       {"config", "federation", "focus", "focus/door", "focus/homeserver", "focus/leave", "focus/leave/redis", "focus/livekit", "focus/matrixrtc", "focus/proxied", "focus/sfu", "focus/signed", "migrations"},
	"bucket":                    {},
	"config":                    {},
	"migrations":                {},
	"federation":                {"bucket", "config", "focus/matrixrtc"},
	"focus":                     {"config", "focus/matrixrtc"},
	"focus/matrixrtc":           {},
	"focus/door":                {"bucket", "focus/matrixrtc"},
	"focus/homeserver":          {},
	"focus/leave":               {"config", "focus/matrixrtc"},
	"focus/leave/redis":         {"config", "focus/leave", "focus/matrixrtc"},
	"focus/livekit":             {"focus/matrixrtc"},
	"focus/proxied":             {"focus/matrixrtc"},
	"focus/signed":              {"focus/matrixrtc"},
	"focus/sfu":                 {"config"},
	"focus/sfu/child":           {"focus/sfu"},
	"bench":                     {"demo/parts", "demo/synapse"},
	"bench/hostile":             {},
	"federation/federationtest": {},
	"migrations/migrationstest": {"migrations", "demo/parts/partstest"},
}

// owners says which packages alone may import a library, whole trees of
// packages included.
var owners = map[string][]string{
	"github.com/spf13/viper":                     {"config"},
	"github.com/livekit/livekit-server":          {"focus/sfu/child"},
	"github.com/livekit/protocol":                {"focus/livekit", "focus/sfu/child", "bench", "demo/chaos", "demo/crowd", "demo/headless", "demo/intruder", "demo/member"},
	"github.com/livekit/server-sdk-go":           {"bench", "demo/chaos", "demo/headless", "demo/member"},
	"github.com/pion":                            {"bench", "demo/member"},
	"github.com/mattn/go-sqlite3":                {"migrations"},
	"github.com/lib/pq":                          {"migrations", "migrations/migrationstest"},
	"github.com/redis/go-redis":                  {"focus/leave/redis"},
	"github.com/chromedp":                        {"demo/caller"},
	"maunium.net/go/mautrix/synapseadmin":        {"demo/synapse"},
	"maunium.net/go/mautrix/crypto/cryptohelper": {},
}

type listed struct {
	ImportPath string
	Imports    []string
}

// TestImports holds the packages against the design: who knows whom, and who
// alone knows a library.
func TestImports(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	require.NoError(t, err)
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	found := 0
	for {
		var p listed
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		found++
		checkImports(t, p)
	}
	require.Greater(t, found, 10)
}

func checkImports(t *testing.T, p listed) {
	t.Helper()
	name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "passerelle"), "/")
	allowed, named := imports[name]
	demo := name == "demo" || strings.HasPrefix(name, "demo/")
	if !named && !demo {
		t.Errorf("%s: say in this test which packages it may import", p.ImportPath)
	}
	for _, path := range p.Imports {
		if ours, ok := strings.CutPrefix(path, "passerelle/"); ok {
			inDemo := strings.HasPrefix(ours, "demo/")
			switch {
			case demo && !inDemo:
				t.Errorf("%s imports %s: the demonstration knows the product by its binary alone", p.ImportPath, path)
			case !demo && !slices.Contains(allowed, ours):
				t.Errorf("%s imports %s: against the direction of imports", p.ImportPath, path)
			}
		}
		for library, who := range owners {
			if (path == library || strings.HasPrefix(path, library+"/")) && !slices.Contains(who, name) {
				t.Errorf("%s imports %s: only %v may", p.ImportPath, path, who)
			}
		}
	}
}

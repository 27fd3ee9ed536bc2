package child_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	lksdk "github.com/livekit/server-sdk-go/v2"

	"github.com/livekit/protocol/logger"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"passerelle/config"
	"passerelle/focus/sfu"
	"passerelle/focus/sfu/child"
)

// The test binary is also `passerelle sfu`, and a Passerelle that can be
// killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sfu" {
		os.Exit(child.Main(os.Stdin, os.Stderr))
	}
	if len(os.Args) == 3 && os.Args[1] == "parent" {
		os.Exit(playParent(os.Args[2]))
	}
	lksdk.SetLogger(logger.GetDiscardLogger())
	os.Exit(m.Run())
}

// parentOptions are the options of a Passerelle in another process.
type parentOptions struct {
	Dir    string          `json:"dir"`
	Config config.Embedded `json:"config"`
}

// playParent supervises until it is killed. Its log is its standard output.
func playParent(encoded string) int {
	var o parentOptions
	if err := json.Unmarshal([]byte(encoded), &o); err != nil {
		return 2
	}
	s, err := sfu.New(sfu.Options{
		Config: o.Config, DataDir: o.Dir, Log: zerolog.New(os.Stdout), Registerer: prometheus.NewRegistry(),
	})
	if err == nil {
		err = errors.Join(s.Run(context.Background()), errors.New("it ended"))
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

package sfu_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"passerelle/config"
	"passerelle/focus/sfu"
)

// The test binary is also the child, with LiveKit's faults but without
// LiveKit, and a Passerelle that can be killed.
func TestMain(m *testing.M) {
	// Else a child that is built with the race detector takes a second to end.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "child":
			os.Exit(playChild(os.Args[2]))
		case "parent":
			os.Exit(playParent(os.Args[2]))
		}
	}
	goleak.VerifyTestMain(m)
}

// playChild is a child that behaves in one of these ways.
func playChild(mode string) int {
	signal.Ignore(syscall.SIGPIPE)
	s, err := sfu.ReadSettings(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch mode {
	case "dies at once":
		fmt.Fprintln(os.Stderr, "panic: nothing works")
		return 3
	case "speaks another language":
		return playStranger(s.Dir)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM)
	control, err := sfu.NewControl(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { control.Serve(ctx) })
	defer serving.Wait()
	defer cancel()
	if mode == "fails slowly" {
		cancel()
		serving.Wait()
		time.Sleep(50 * time.Millisecond) // lets go first, and then says why
		fmt.Fprintln(os.Stderr, "the port is taken")
		return 1
	}
	if mode != "never ready" {
		control.Ready()
	}
	if mode == "chatty" {
		go chat(s.Dir)
	}
	for n := 1; ; n++ {
		select {
		case <-signals:
			fmt.Fprintf(os.Stderr, "signal %d\n", n)
		case <-control.Orphaned():
			return 0
		}
		if mode == "deaf" || mode == "hard of hearing" && n == 1 {
			continue
		}
		return 0
	}
}

// chat writes to standard error for ever, and says in a file when nobody
// reads it any more.
func chat(dir string) {
	for range time.Tick(5 * time.Millisecond) {
		if _, err := fmt.Fprintln(os.Stderr, "la la la"); err != nil {
			_ = os.WriteFile(filepath.Join(dir, "unheard"), []byte(err.Error()), 0o600)
			return
		}
	}
}

// playStranger holds the control socket and says what no child says.
func playStranger(dir string) int {
	listener, err := net.Listen("unix", filepath.Join(dir, "sfu.sock"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return 1
		}
		fmt.Fprintln(conn, "220 mail.example.org ESMTP")
	}
}

// parentOptions are the options of a Passerelle in another process.
type parentOptions struct {
	Dir    string          `json:"dir"`
	Mode   string          `json:"mode"`
	Config config.Embedded `json:"config"`
}

// playParent supervises until it is killed. Its log is its standard output.
func playParent(encoded string) int {
	var o parentOptions
	if err := json.Unmarshal([]byte(encoded), &o); err != nil {
		return 2
	}
	s, err := sfu.New(sfu.Options{
		Config: o.Config, DataDir: o.Dir, Args: []string{"child", o.Mode},
		Log: zerolog.New(os.Stdout), Registerer: prometheus.NewRegistry(),
	})
	if err == nil {
		err = errors.Join(s.Run(context.Background()), errors.New("it ended"))
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

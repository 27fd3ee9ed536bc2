// The demonstration: two ministries on this machine, each with a real Synapse
// and a Passerelle with its SFU, and two people who call each other.
//
//	go run ./demo              starts everything and prints two links to open
//	go run ./demo --headless   lets two browsers call, checks, and ends
//
// It fetches what it needs into the folder .cache, uses loopback addresses
// alone, and takes everything down when it ends, also after Ctrl-C or when its
// terminal is closed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"passerelle/demo/headless"
	"passerelle/demo/host"
	"passerelle/demo/parts"
	"passerelle/demo/town"
)

type options struct {
	headless  bool
	parts     bool
	mode      string
	encrypted bool
	lang      string
	runs      int
	out       string
	verbose   bool
}

func main() {
	var o options
	flag.BoolVar(&o.headless, "headless", false, "let two browsers call, check that they see and hear each other, and end")
	flag.BoolVar(&o.parts, "parts", false, "fetch what the demonstration and the tests need, and end")
	flag.StringVar(&o.mode, "mode", string(host.Compatibility), "how Element Call says who is in the call: compatibility or matrix_2_0")
	flag.BoolVar(&o.encrypted, "encrypted", false, "call in an encrypted room")
	flag.StringVar(&o.lang, "lang", "fr", "language of the pages and of this program: fr or en")
	flag.IntVar(&o.runs, "runs", 1, "how many calls to make, with --headless")
	flag.StringVar(&o.out, "out", "demo-out", "folder for the screenshots, with --headless")
	flag.BoolVar(&o.verbose, "verbose", false, "say more")
	flag.Parse()
	say, ok := texts[o.lang]
	if !ok || flag.NArg() > 0 || o.runs < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, o, say); err != nil {
		if ctx.Err() != nil {
			// What failed failed because of that.
			fmt.Println(say.interrupted)
		} else {
			fmt.Fprintf(os.Stderr, "%s %v\n", say.failed, err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, say text) error {
	began := time.Now()
	store, err := parts.Open(os.Stdout, true)
	if err != nil {
		return err
	}
	if o.parts {
		return fetchAll(ctx, store)
	}
	build := town.Options{Mode: host.Mode(o.mode), Encrypted: o.encrypted, LowQuality: o.headless}
	if build.Binary, err = buildBinary(ctx, store, say); err != nil {
		return err
	}
	if build.Python, err = store.Synapse(ctx); err != nil {
		return err
	}
	if build.Web, err = store.Web(ctx); err != nil {
		return err
	}
	if !o.headless {
		return showTown(ctx, build, o, say, began)
	}
	chromium, err := store.Chromium(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	for i := range o.runs {
		if o.runs > 1 {
			fmt.Printf(say.runNumber+"\n", i+1, o.runs)
		}
		if err := callHeadless(ctx, build, chromium, o, say); err != nil {
			return err
		}
	}
	fmt.Printf(say.passed+"\n", time.Since(began).Round(time.Second))
	return nil
}

// fetchAll fetches every part, those of the tests too.
func fetchAll(ctx context.Context, store *parts.Store) error {
	for _, fetch := range []func(context.Context) (string, error){store.Synapse, store.Web, store.Chromium, store.Postgres, store.Redis} {
		if _, err := fetch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// buildBinary builds Passerelle from the checkout.
func buildBinary(ctx context.Context, store *parts.Store, say text) (string, error) {
	fmt.Println(say.building)
	binary := filepath.Join(store.Dir, "bin", "passerelle")
	command := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, ".")
	command.Dir = store.Root
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("go build: %w", err)
	}
	return binary, nil
}

// showTown starts the town for people and keeps it until they have seen enough.
func showTown(ctx context.Context, build town.Options, o options, say text, began time.Time) (err error) {
	fmt.Println(say.starting)
	t, err := town.Start(ctx, build)
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println(say.stopping)
		err = errors.Join(err, t.Stop())
	}()
	fmt.Printf(say.ready+"\n", time.Since(began).Round(time.Second))
	for _, m := range []*town.Ministry{t.Interieur, t.Finances} {
		fmt.Printf("\n  %s (%s)\n    %s\n", m.Name, m.User.UserID, m.Link(o.lang, false))
	}
	fmt.Println("\n" + say.whatToDo)
	<-ctx.Done()
	return nil // asked to end, and not failed
}

// callHeadless starts a fresh town, makes one call in it, and says what was
// seen.
func callHeadless(ctx context.Context, build town.Options, chromium string, o options, say text) (err error) {
	fmt.Println(say.starting)
	t, err := town.Start(ctx, build)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Stop()) }()
	fmt.Println(say.calling)
	log := zerolog.Nop()
	if o.verbose {
		log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr}).With().Timestamp().Logger()
	}
	report, err := headless.Run(ctx, t, headless.Options{Chromium: chromium, Out: o.out, Lang: o.lang, Log: log})
	fmt.Print(report.Timeline.String())
	if report.ButtonSeen > 0 {
		fmt.Printf(say.button+"\n", report.ButtonSeen.Round(time.Millisecond), headless.ButtonAim)
	}
	if report.KillSeen > 0 {
		fmt.Printf(say.killed+"\n", report.KillSeen.Round(100*time.Millisecond), headless.KillAim)
	}
	if err != nil {
		return err
	}
	fmt.Println(say.screenshots)
	for _, path := range report.Screenshots {
		fmt.Println("  " + path)
	}
	return nil
}

// The demonstration: two ministries on this machine, each with a real Synapse
// and a Passerelle with its SFU, and two people who call each other.
//
//	go run ./demo              starts everything and prints two links to open
//	go run ./demo --headless   lets two browsers call, checks, and ends
//	go run ./demo --chaos 300  lets 300 callers without browsers come and go
//	                           while servers are killed, checks, and ends
//	go run ./demo --leaves 10000  has so many clients hand their delayed leaves
//	                           over to one homeserver, checks, and ends
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
	"passerelle/demo/member"
	"passerelle/demo/parts"
	"passerelle/demo/timing"
	"passerelle/demo/town"
)

type options struct {
	headless  bool
	parts     bool
	mode      string
	encrypted bool
	lang      string
	runs      int
	killSFU   int
	chaos     int
	leaves    int
	seed      uint64
	out       string
	verbose   bool
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == member.Command {
		os.Exit(member.Main(os.Stdin, os.Stdout))
	}
	var o options
	flag.BoolVar(&o.headless, "headless", false, "let two browsers call, check that they see and hear each other, and end")
	flag.BoolVar(&o.parts, "parts", false, "fetch what the demonstration and the tests need, and end")
	flag.StringVar(&o.mode, "mode", string(host.Compatibility), "how Element Call says who is in the call: compatibility or matrix_2_0")
	flag.BoolVar(&o.encrypted, "encrypted", false, "call in an encrypted room")
	flag.StringVar(&o.lang, "lang", "fr", "language of the pages and of this program: fr or en")
	flag.IntVar(&o.runs, "runs", 1, "how many calls to make, with --headless")
	flag.IntVar(&o.killSFU, "kill-sfu", 0, "how often to kill an SFU in each call, with --headless")
	flag.IntVar(&o.chaos, "chaos", 0, "play so many joins while servers are killed, check that nobody is left in a call or put out of one, and end")
	flag.IntVar(&o.leaves, "leaves", 0, "have so many clients at one homeserver hand their delayed leaves over, check that each that goes has one, and end")
	flag.Uint64Var(&o.seed, "seed", 1, "who does what, and when servers are killed, with --chaos and --leaves")
	flag.StringVar(&o.out, "out", "demo-out", "folder for the screenshots, with --headless")
	flag.BoolVar(&o.verbose, "verbose", false, "say more")
	flag.Parse()
	say, ok := texts[o.lang]
	if !ok || flag.NArg() > 0 || o.runs < 1 || o.killSFU < 0 || o.chaos < 0 || o.leaves < 0 {
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
	store.Lang = o.lang
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
	if o.chaos > 0 {
		return playChaos(ctx, build, o, say)
	}
	if o.leaves > 0 {
		return playCrowd(ctx, build, o)
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
	for _, fetch := range []func(context.Context) (string, error){
		store.Synapse, store.Dendrite, store.Web, store.Chromium, store.Postgres, store.Redis,
	} {
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
	report, err := headless.Run(ctx, t, headless.Options{Chromium: chromium, Out: o.out, Lang: o.lang, KillSFU: o.killSFU, Log: log})
	fmt.Print(report.Timeline.String())
	if report.ButtonSeen > 0 {
		fmt.Printf(say.button+"\n", report.ButtonSeen.Round(time.Millisecond), headless.ButtonAim)
	}
	if report.GivenUp > 0 {
		fmt.Printf(say.killed+"\n", report.GivenUp.Round(100*time.Millisecond), report.KillSeen.Round(time.Millisecond), headless.KillAim)
	}
	if err != nil {
		return err
	}
	if back := report.PicturesBack; len(back) > 0 {
		within := func(p int) time.Duration { return timing.Percentile(back, p).Round(time.Millisecond) }
		fmt.Printf(say.pictureBack+"\n", len(back), within(50), within(95), within(100))
	}
	fmt.Println(say.screenshots)
	for _, path := range report.Screenshots {
		fmt.Println("  " + path)
	}
	return nil
}

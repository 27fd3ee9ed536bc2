// Passerelle lets the staff of many ministries, each on its own Matrix
// homeserver, hold one call: it says who may join, makes the call's SFU
// session and keeps the record of who is there.
//
//	passerelle [serve] [-config FILE]       run
//	passerelle check-config [-config FILE]  say what is wrong with a configuration
//	passerelle check [-config FILE]         that, and whether the homeserver is set up for it
//	passerelle registration focus [-config FILE] [-out FILE] [-proxy-url URL]
//	                                        write what the homeserver reads to know Passerelle
//	passerelle transports [-config FILE]    print what the homeserver announces to clients
//	passerelle version                      print the version
//
// `passerelle sfu` is the media server that serve starts as a child process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"passerelle/app"
	"passerelle/config"
	"passerelle/focus/sfu/child"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

const usage = `usage:
  passerelle [serve] [-config FILE]       run
  passerelle check-config [-config FILE]  say what is wrong with a configuration
  passerelle check [-config FILE]         that, and whether the homeserver is set up for it
  passerelle registration focus [-config FILE] [-out FILE] [-proxy-url URL]
                                          write what the homeserver reads to know Passerelle
  passerelle transports [-config FILE]    print what the homeserver announces to clients
  passerelle version                      print the version

Without -config, PASSERELLE_CONFIG names the file, or config.yaml is read if
there is one. Every key can be set in the environment: PASSERELLE_SERVER_LISTEN.
`

// run is main with an exit code: 0 well, 1 failed, 2 called wrongly.
func run(args []string) int {
	command := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("passerelle", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("config", configFile(), "")
	var out, proxyURL string
	if command == "registration" && len(args) > 0 && args[0] == "focus" {
		args = args[1:]
		flags.StringVar(&out, "out", "", "")
		flags.StringVar(&proxyURL, "proxy-url", "", "")
	} else if command == "registration" {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp) || command == "help":
		fmt.Print(usage)
		return 0
	case err != nil || flags.NArg() > 0:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	switch command {
	case "serve":
		return serve(*file)
	case "check-config":
		return checkConfig(*file)
	case "check":
		return check(*file, os.Stdout, os.Stderr)
	case "registration":
		return registration(registrationSettings{*file, out, proxyURL}, os.Stdout, os.Stderr)
	case "transports":
		return transports(*file, os.Stdout, os.Stderr)
	case "version":
		fmt.Println("passerelle", version())
		return 0
	case "sfu":
		return child.Main(os.Stdin, os.Stderr)
	}
	fmt.Fprintf(os.Stderr, "passerelle: there is no command %q\n%s", command, usage)
	return 2
}

// configFile is the file that is read when no flag names one; "" is none.
func configFile() string {
	if named := os.Getenv("PASSERELLE_CONFIG"); named != "" {
		return named
	}
	if _, err := os.Stat("config.yaml"); err == nil {
		return "config.yaml"
	}
	return ""
}

func checkConfig(file string) int {
	if _, err := config.Load(file, os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("The configuration is good.")
	return 0
}

// serve runs the program until a signal or a failure. The first SIGTERM or
// SIGINT stops it in order, also while it starts, the second at once; SIGHUP
// reads the configuration again.
func serve(file string) int {
	// Each has a channel of its own: a storm of the one must not drown the other.
	ends, reloads := make(chan os.Signal, 2), make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(reloads, syscall.SIGHUP)
	load := func() (*config.Config, error) { return config.Load(file, os.Environ()) }
	c, err := load()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer runtime.KeepAlive(raiseHeapFloor())
	log := newLogger(c.Log)
	a, code := start(app.Options{Config: c, Load: load, Log: log, Version: version()}, ends)
	if a == nil {
		return code
	}
	for {
		select {
		case err := <-a.Failed():
			log.Error().Err(err).Msg("Passerelle cannot go on")
			_ = stop(a, log, ends)
			return 1
		case <-ends:
			return stop(a, log, ends)
		case <-reloads:
			if err := a.Reload(); err != nil {
				log.Error().Err(err).Msg("The configuration has mistakes; the running one stays")
			}
		}
	}
}

// start starts the program, which may have to wait for its database. Without a
// program there is an exit code.
func start(o app.Options, ends <-chan os.Signal) (*app.App, int) {
	ctx, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	type result struct {
		app *app.App
		err error
	}
	started := make(chan result, 1)
	go func() {
		a, err := app.New(ctx, o)
		if err == nil {
			err = a.Start(ctx)
		}
		started <- result{a, err}
	}()
	for {
		select {
		case r := <-started:
			switch {
			case r.err == nil && ctx.Err() == nil:
				return r.app, 0
			case r.err == nil:
				return nil, stop(r.app, o.Log, ends)
			case ctx.Err() != nil:
				o.Log.Info().Err(r.err).Msg("Passerelle has stopped before it had started")
				return nil, 0
			}
			o.Log.Error().Err(r.err).Msg("Passerelle could not start")
			return nil, 1
		case <-ends:
			if ctx.Err() != nil {
				return nil, stopAtOnce(o.Log)
			}
			giveUp()
		}
	}
}

// stop stops in order, unless another signal says that it must be now.
func stop(a *app.App, log zerolog.Logger, ends <-chan os.Signal) int {
	log.Info().Msg("Passerelle is stopping")
	stopped := make(chan error, 1)
	go func() { stopped <- a.Stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			log.Error().Err(err).Msg("Passerelle did not stop in order")
			return 1
		}
		log.Info().Msg("Passerelle has stopped")
		return 0
	case <-ends:
		return stopAtOnce(log)
	}
}

func stopAtOnce(log zerolog.Logger) int {
	log.Warn().Msg("Stopped at once by a second signal")
	return 1
}

// newLogger writes JSON lines, or lines for people on a terminal, to stderr.
func newLogger(c config.Log) zerolog.Logger {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	zerolog.DurationFieldUnit = time.Millisecond
	if level, err := zerolog.ParseLevel(c.Level); err == nil {
		zerolog.SetGlobalLevel(level)
	}
	console := c.Format == "console"
	if c.Format == "auto" {
		info, err := os.Stderr.Stat()
		console = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	var to io.Writer = os.Stderr
	if console {
		to = zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly}
	}
	return zerolog.New(to).With().Timestamp().Logger()
}

// version is the module's version, or the commit that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return "development"
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"passerelle/config"
	"passerelle/focus/homeserver"
	"passerelle/focus/proxied"
)

// check asks the running homeserver whether it is set up for Passerelle, and
// says what is not, what that costs, and what mends it. 0 is well.
func check(file string, stdout, stderr io.Writer) int {
	c, err := config.Load(file, os.Environ())
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	if c.Homeserver.URL == "" || c.Homeserver.ASToken == "" {
		fmt.Fprintln(stdout, "The configuration is good. It names no homeserver that could be asked.")
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := homeserver.NewClient(homeserver.Options{URL: c.Homeserver.URL, Token: c.Homeserver.ASToken.Reveal()})
	defer client.Close()
	findings, _ := client.Check(ctx, homeserver.CheckOptions{
		Proxied: c.Homeserver.Listen != "", ProbePath: proxied.Probe, ProbeAnswer: proxied.ProbeAnswer,
	})
	for _, f := range findings {
		fmt.Fprintln(stdout, f)
	}
	if len(findings) > 0 {
		return 1
	}
	fmt.Fprintln(stdout, "The configuration is good, and the homeserver is set up for it.")
	if c.Homeserver.Listen != "" {
		fmt.Fprintln(stdout, homeserver.Advice())
	}
	return 0
}

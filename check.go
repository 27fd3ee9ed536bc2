package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"passerelle/app"
	"passerelle/config"
	"passerelle/focus/homeserver"
)

// check asks the running homeserver whether it is set up for Passerelle, and
// says what is not, what that costs, and what mends it. 0 is well.
func check(file string, stdout, stderr io.Writer) int {
	c, err := config.Load(file, os.Environ())
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	if c.Homeserver.URL == "" {
		fmt.Fprintln(stdout, "The configuration is good. It names no homeserver that could be asked.")
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := homeserver.NewClient(homeserver.Options{URL: c.Homeserver.URL, Token: c.Homeserver.ASToken.Reveal()})
	defer client.Close()
	findings, _ := client.Check(ctx, app.CheckOptions(c))
	code := 0
	for _, f := range findings {
		fmt.Fprintln(stdout, f)
		if !f.Unseen {
			code = 1
		}
	}
	if code == 0 {
		fmt.Fprintln(stdout, "The configuration is good, and the homeserver is set up for it.")
	}
	return code
}

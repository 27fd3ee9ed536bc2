package main

import (
	"fmt"
	"io"
	"os"

	"passerelle/app"
	"passerelle/config"
)

// transports writes what the homeserver has to announce, to be copied. 0 is well.
func transports(file string, stdout, stderr io.Writer) int {
	c, err := config.Load(file, os.Environ())
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	text, err := app.Transports(c).Text()
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	fmt.Fprint(stdout, text)
	if c.Homeserver.Listen == "" {
		fmt.Fprintln(stderr, "homeserver.listen is empty, so no url is announced: clients that find one ask through the homeserver alone")
	}
	return 0
}

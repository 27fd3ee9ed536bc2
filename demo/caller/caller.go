package caller

import (
	"context"
	"errors"

	"github.com/rs/zerolog"
)

// Options says who calls, with what.
type Options struct {
	// Chromium is the path of the browser's program.
	Chromium string
	// URL is the link to open; see the package host.
	URL string
	// Dir is an existing folder for the profile and the sound file. They are
	// removed by Close.
	Dir string
	// Name tells callers apart in logs and errors.
	Name string
	// Tone is what the microphone hears, in hertz.
	Tone int
	// Hears is the tone that the other caller sends, in hertz: WaitLive waits
	// until it is the loudest. 0 takes any sound.
	Hears int
	// Log gets the browser's life; its console goes to Console.
	Log zerolog.Logger
}

// Media is what a caller sees and hears of the others.
type Media struct {
	Frames int     // decoded frames of remote video
	Images int     // different pictures among the samples of remote video
	Width  int     // of the remote video, in pixels
	Height int     // of the remote video, in pixels
	Energy float64 // of the sound received, summed since the start
	PeakHz int     // the loudest tone of the sound received
}

// Caller is one browser in one call.
type Caller struct{ opts Options }

// Start starts the browser and opens the link. ctx bounds the start alone.
func Start(ctx context.Context, opts Options) (*Caller, error) {
	return nil, errors.New("caller: not there yet")
}

// WaitLive waits until another participant is really seen and heard.
func (c *Caller) WaitLive(ctx context.Context) (Media, error) { return Media{}, nil }

// InCall lists the Matrix user IDs that the page says are in the call.
func (c *Caller) InCall(ctx context.Context) ([]string, error) { return nil, nil }

// Screenshot writes what the page shows as a PNG file.
func (c *Caller) Screenshot(ctx context.Context, path string) error { return nil }

// HangUp presses Element Call's own button and waits until the page says that
// the call was left.
func (c *Caller) HangUp(ctx context.Context) error { return nil }

// Kill ends the browser at once, as a crash would. Close is still needed.
func (c *Caller) Kill() {}

// Console is the last lines of the browser's console and its uncaught errors.
func (c *Caller) Console() []string { return nil }

// Close ends the browser if it runs and removes its files.
func (c *Caller) Close() error { return nil }

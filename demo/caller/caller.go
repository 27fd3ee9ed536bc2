package caller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/remote"
	"github.com/rs/zerolog"

	_ "embed"
)

// ErrGone says that the browser has ended, by Kill, by Close or by itself.
var ErrGone = errors.New("the browser has ended")

// probe measures in the page what is seen and heard; see probe.js.
//
//go:embed probe.js
var probe string

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
	// Tone is what the microphone hears, in hertz: 100 to 8000.
	Tone int
	// Hears is the tone that the other caller sends, in hertz: WaitLive waits
	// until it is the loudest. 0 takes any sound.
	Hears int
	// Log gets the browser's life; its console goes to Console.
	Log zerolog.Logger
}

// Caller is one browser in one call.
type Caller struct {
	opts    Options
	dir     string // everything of this caller, removed by Close
	browser *browser
	console *ring
	tab     context.Context // of chromedp; ends with the browser
	endTab  context.CancelFunc
	close   sync.Once

	following sync.WaitGroup // the console's reader
}

// Start starts the browser and opens the link. ctx bounds the start alone; the
// browser stays until Close.
func Start(ctx context.Context, opts Options) (*Caller, error) {
	if opts.Tone < 100 || opts.Tone > 8000 {
		return nil, fmt.Errorf("caller %s: a tone of %d Hz is not one of 100 to 8000", opts.Name, opts.Tone)
	}
	dir, err := os.MkdirTemp(opts.Dir, "caller-")
	if err != nil {
		return nil, fmt.Errorf("caller %s: making its folder: %w", opts.Name, err)
	}
	c := &Caller{opts: opts, dir: dir, console: &ring{}}
	if err := c.start(ctx); err != nil {
		err = c.explain("starting", errors.Join(err, context.Cause(ctx)))
		return nil, errors.Join(err, c.Close())
	}
	opts.Log.Debug().Str("caller", opts.Name).Int("pid", c.browser.pid).Msg("A caller's browser has started")
	return c, nil
}

func (c *Caller) start(ctx context.Context) error {
	sound := filepath.Join(c.dir, "microphone.wav")
	if err := os.WriteFile(sound, tone(c.opts.Tone), 0o644); err != nil {
		return fmt.Errorf("writing what the microphone hears: %w", err)
	}
	var err error
	if c.browser, err = launch(c.opts.Chromium, filepath.Join(c.dir, "profile"), sound); err != nil {
		return err
	}
	// A start that takes too long ends the browser, and with it all that waits
	// for it.
	defer context.AfterFunc(ctx, c.browser.kill)()
	address, err := c.browser.devtools(ctx)
	if err != nil {
		return err
	}
	c.connect(address)
	if err := chromedp.Do(c.tab); err != nil {
		return fmt.Errorf("opening a tab: %w", err)
	}
	c.following.Go(func() { c.console.follow(c.tab) })
	_, err = chromedp.Call(c.tab, page.AddScriptToEvaluateOnNewDocument,
		page.AddScriptToEvaluateOnNewDocumentParams{Source: probe})
	if err != nil {
		return fmt.Errorf("preparing the tab: %w", err)
	}
	if err := chromedp.Do(c.tab, chromedp.Navigate(c.opts.URL)); err != nil {
		return fmt.Errorf("opening the link: %w", err)
	}
	return nil
}

// connect makes the context of the tab. It has no deadline, since chromedp
// ends a browser with the context that first used it.
func (c *Caller) connect(address string) {
	allocator, endAllocator := remote.NewAllocator(context.Background(), address, remote.NoModifyURL)
	tab, endTab := chromedp.NewContext(allocator, chromedp.WithErrorf(func(format string, args ...any) {
		c.console.add("devtools: " + fmt.Sprintf(format, args...))
	}))
	c.tab, c.endTab = tab, func() { endTab(); endAllocator() }
}

// do runs an action in the caller's tab, within ctx.
func do[T any](ctx context.Context, c *Caller, action chromedp.Action[T]) (T, error) {
	inTab, cancel := context.WithCancel(c.tab)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	result, err := chromedp.Run(inTab, action)
	switch {
	case err == nil:
		return result, nil
	case c.browser.ended() || c.tab.Err() != nil:
		return result, ErrGone
	case ctx.Err() != nil:
		return result, context.Cause(ctx)
	}
	return result, err
}

// InCall lists the Matrix user IDs that the page says are in the call.
func (c *Caller) InCall(ctx context.Context) ([]string, error) {
	users, err := do(ctx, c, chromedp.Evaluate[[]string](`passerelleProbe.inCall()`))
	if err != nil {
		return nil, c.explain("reading who is in the call", err)
	}
	return users, nil
}

// Shown is the text of the page and of the call's frame, on one line and cut
// short, after the state that the page gives itself.
func (c *Caller) Shown(ctx context.Context) (string, error) {
	shown, err := do(ctx, c, chromedp.Evaluate[string](`passerelleProbe.shown()`))
	if err != nil {
		return "", fmt.Errorf("caller %s: reading the page: %w", c.opts.Name, err)
	}
	return shown, nil
}

// Screenshot writes what the page shows as a PNG file.
func (c *Caller) Screenshot(ctx context.Context, path string) error {
	picture, err := do(ctx, c, chromedp.CaptureScreenshot())
	if err != nil {
		return c.explain("taking a screenshot", err)
	}
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		return fmt.Errorf("caller %s: writing a screenshot: %w", c.opts.Name, err)
	}
	return nil
}

// HangUp presses Element Call's own button with the mouse and waits until the
// page says that the call was left. It returns when the button was pressed;
// what others see of it may come before the page says so.
func (c *Caller) HangUp(ctx context.Context) (pressed time.Time, err error) {
	type point struct{ X, Y float64 }
	var button *point
	err = c.poll(ctx, func() (done bool, err error) {
		button, err = do(ctx, c, chromedp.Evaluate[*point](`passerelleProbe.leaveButton()`))
		return button != nil, err
	})
	if err != nil {
		return pressed, c.explain("finding the button that leaves", err)
	}
	pressed = time.Now()
	if _, err := do(ctx, c, chromedp.MouseClickXY(button.X, button.Y)); err != nil {
		return pressed, c.explain("pressing the button that leaves", err)
	}
	err = c.poll(ctx, func() (bool, error) {
		state, err := do(ctx, c, chromedp.Evaluate[string](`passerelleProbe.state()`))
		return state == "left", err
	})
	if err != nil {
		return pressed, c.explain("leaving the call", err)
	}
	return pressed, nil
}

const pollInterval = 200 * time.Millisecond

// poll asks until the answer is yes: a page has no event for most of what is
// asked here.
func (c *Caller) poll(ctx context.Context, ask func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if done, err := ask(); done || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-c.browser.exited:
			return ErrGone
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Kill ends the browser at once, as a crash would, and waits until it is gone.
// Close is still needed.
func (c *Caller) Kill() {
	c.browser.kill()
	<-c.browser.exited
}

// Console is the last lines of the browser's console, its uncaught errors and
// its failed requests, oldest first.
func (c *Caller) Console() []string { return c.console.lines() }

// Close ends the browser if it runs and removes its files. A second call does
// nothing.
func (c *Caller) Close() error {
	var err error
	c.close.Do(func() {
		if c.browser != nil {
			c.Kill()
		}
		if c.endTab != nil {
			c.endTab()
			c.following.Wait()
		}
		if err = errors.Join(removeSocket(filepath.Join(c.dir, "profile")), removeAll(c.dir)); err != nil {
			err = fmt.Errorf("caller %s: removing its folder: %w", c.opts.Name, err)
		}
	})
	return err
}

// removeAll tries again for a moment: a process that was killed may still be
// writing its last file.
func removeAll(dir string) error {
	var err error
	for range 20 {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

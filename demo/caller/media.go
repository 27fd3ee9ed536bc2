package caller

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
)

// Media is what a caller sees and hears of the others. Its own picture and
// voice are never counted.
type Media struct {
	Frames int     `json:"frames"` // decoded frames of remote video
	Images int     `json:"images"` // samples of remote video that differ from the one before
	Width  int     `json:"width"`  // of the remote video, in pixels
	Height int     `json:"height"` // of the remote video, in pixels
	Energy float64 `json:"energy"` // of the sound received since the start (W3C totalAudioEnergy)
	PeakHz int     `json:"peakHz"` // the loudest tone of the sound that is played; 0: silence
	// Encrypted: the frames of all that is played were decrypted by the page
	// (WebRTC Encoded Transform), which is what Element Call does in an
	// encrypted room and nowhere else.
	Encrypted bool `json:"encrypted"`
}

// What WaitLive wants before it believes: at 5 frames a second, two seconds of
// moving picture; and the tone in a row of measurements, since one can be luck.
const (
	enoughFrames = 10
	enoughImages = 4
	enoughTones  = 3
	// toneWidth is how far a measured peak may be from the tone, in hertz: two
	// bins of the spectrum.
	toneWidth = 12
)

// WaitLive waits until another participant is really seen and heard: frames
// that are decoded and differ, and in the sound that is played, growing energy
// and the expected tone. In an encrypted call nothing of that can be without
// the right keys. It returns what it measured, also with an error.
func (c *Caller) WaitLive(ctx context.Context) (Media, error) {
	var m Media
	tones := 0
	err := c.poll(ctx, func() (bool, error) {
		before := m
		measured, err := do(ctx, c, chromedp.Evaluate[Media](`passerelleProbe.measure()`, chromedp.EvalAwaitPromise))
		if err != nil {
			return false, err
		}
		m = measured
		switch {
		case m.Energy > before.Energy && heard(m.PeakHz, c.opts.Hears):
			tones++
		case m.Energy != before.Energy && c.opts.Hears != 0: // any sound may pause
			tones = 0
		}
		return m.Frames >= enoughFrames && m.Images >= enoughImages && m.Width > 0 && tones >= enoughTones, nil
	})
	if err != nil {
		err = c.explain(fmt.Sprintf("waiting to see and hear somebody (%+v)", m), err)
	}
	return m, err
}

// Streams are the videos of others that arrive, as many frames of each as were
// decoded. A video that comes over another connection than before is another
// stream.
type Streams map[string]int

// Streams counts the frames of each video that arrives.
func (c *Caller) Streams(ctx context.Context) (Streams, error) {
	streams, err := do(ctx, c, chromedp.Evaluate[Streams](`passerelleProbe.streams()`, chromedp.EvalAwaitPromise))
	if err != nil {
		return nil, c.explain("counting the frames that arrive", err)
	}
	return streams, nil
}

// AwaitNewStream waits until frames of a video are decoded that was not among
// those before, and returns when that was seen: two frames, since a picture
// that moves is more than one.
func (c *Caller) AwaitNewStream(ctx context.Context, before Streams) (time.Time, error) {
	ticker := time.NewTicker(pollInterval / 10)
	defer ticker.Stop()
	for {
		now, err := c.Streams(ctx)
		if err != nil {
			return time.Time{}, err
		}
		for name, frames := range now {
			if _, old := before[name]; !old && frames >= 2 {
				return time.Now(), nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return time.Time{}, c.explain("waiting for the other's picture", context.Cause(ctx))
		}
	}
}

// heard says whether the peak is the expected tone; any is, if none is.
func heard(peak, expected int) bool {
	if expected == 0 {
		return peak > 0
	}
	return peak >= expected-toneWidth && peak <= expected+toneWidth
}

const (
	explainTimeout = 2 * time.Second
	explainLines   = 25
)

// explain adds to an error what the page showed and the end of the console.
func (c *Caller) explain(doing string, err error) error {
	shown := "(no page)"
	if c.tab != nil && c.tab.Err() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), explainTimeout)
		defer cancel()
		var failed error
		if shown, failed = c.Shown(ctx); failed != nil {
			shown = "(" + failed.Error() + ")"
		}
	}
	lines := c.console.lines()
	if c.browser != nil && (len(lines) == 0 || c.browser.ended()) {
		lines = append(lines, c.browser.said.lines()...)
	}
	lines = lines[max(0, len(lines)-explainLines):]
	return fmt.Errorf("caller %s: %s: %w\nthe page shows: %s\nthe console ends with:\n\t%s",
		c.opts.Name, doing, err, shown, strings.Join(lines, "\n\t"))
}

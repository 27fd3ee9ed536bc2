package caller

import (
	"context"
	"strings"
	"sync"

	"github.com/chromedp/chromedp"
)

const (
	maxLines = 1000
	maxLine  = 600
)

// ring keeps the last lines that were added. It is safe for concurrent use.
type ring struct {
	mu   sync.Mutex
	kept []string
	next int // where the oldest is, once all places are taken
}

// add keeps a line, cut to maxLine bytes, and forgets the oldest if needed.
func (r *ring) add(line string) {
	if len(line) > maxLine {
		line = strings.ToValidUTF8(line[:maxLine], "") + "…"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < maxLines {
		r.kept = append(r.kept, line)
		return
	}
	r.kept[r.next] = line
	r.next = (r.next + 1) % maxLines
}

// lines returns what is kept, oldest first.
func (r *ring) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(append([]string{}, r.kept[r.next:]...), r.kept[:r.next]...)
}

// follow keeps what the page and its frames write, until the tab ends.
func (r *ring) follow(tab context.Context) {
	for message, err := range chromedp.Console(tab) {
		if err != nil {
			return
		}
		line := message.Time.Format("15:04:05.000 ") + message.String()
		if message.Source != "" {
			line += " " + message.URL
		}
		r.add(line)
	}
}

package headless

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Timeline is what happened, and when.
type Timeline struct {
	began time.Time

	mu      sync.Mutex
	entries []entry
}

type entry struct {
	at              time.Time
	who, what, note string
}

func (t *Timeline) note(at time.Time, who, what, note string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries = append(t.entries, entry{at, who, what, note})
}

// String is a line for each entry, in the order of time.
func (t *Timeline) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.entries, func(a, b entry) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	var lines strings.Builder
	for _, e := range t.entries {
		since := e.at.Sub(t.began)
		fmt.Fprintf(&lines, "  %02d:%06.3f  %-6s %s", int(since.Minutes()), (since % time.Minute).Seconds(), e.who, e.what)
		if e.note != "" {
			fmt.Fprintf(&lines, "  (%s)", e.note)
		}
		lines.WriteByte('\n')
	}
	return lines.String()
}

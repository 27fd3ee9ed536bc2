package chaos

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"passerelle/demo/timing"
)

// Report is what came of it.
type Report struct {
	Took            time.Duration
	Guests, Leaves  int
	Heard           int // guests that left by themselves and had heard others
	Kills, Restarts int
	// What must not be: who is in a call still; who was put out although at the
	// SFU; who left twice without having come back; whose leaves are too many or
	// too few; delayed leaves that would still come.
	Ghosts, ThrownOut, Doubled, Miscounted, LeftBehind []string
	// Unseen is how many leaves the other ministry never saw.
	Unseen int

	times map[string][]time.Duration
}

// These are the times that LeaveWithin is about.
const (
	afterTimeout = "LiveKit's timeout to be seen"
	afterBreak   = "the time to reconnect to be seen"
)

// String is a table for people.
func (report *Report) String() string {
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range []struct {
		what  string
		count int
	}{
		{"guests", report.Guests},
		{"leaves at the homeserver", report.Leaves},
		{"kill -9 of Passerelle", report.Kills},
		{"restarts of the homeserver", report.Restarts},
		{"guests that heard others", report.Heard},
		{"ghosts left", len(report.Ghosts)},
		{"put out wrongly", len(report.ThrownOut)},
		{"leaves sent twice", len(report.Doubled)},
		{"leaves too many or too few", len(report.Miscounted)},
		{"delayed leaves left behind", len(report.LeftBehind)},
	} {
		fmt.Fprintf(out, "%s\t%d\n", row.what, row.count)
	}
	timing.Table(out, "", report.times)
	_ = out.Flush()
	for _, what := range []string{afterTimeout, afterBreak} {
		late := slices.DeleteFunc(slices.Clone(report.times[what]), func(t time.Duration) bool { return t <= LeaveWithin })
		fmt.Fprintf(&text, "\n%s: %d of %d within %s", what, len(report.times[what])-len(late), len(report.times[what]), LeaveWithin)
	}
	fmt.Fprintf(&text, "\n\nin %s\n", report.Took.Round(time.Second))
	return text.String()
}

package crowd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"passerelle/demo/timing"
)

// Report is what came of it.
type Report struct {
	Took     time.Duration
	Stranger bool
	// Clients are all, There those who are there at the end, Most how many were
	// at once, Leaves the events at the homeserver.
	Clients, There, Most, Leaves int
	// Kills are those of Passerelle, Lost and Repeated reports of the SFU.
	Kills, Lost, Repeated int
	// Fastest is how many leaves were put off in a second, at best; Queued how
	// many calls to the homeserver waited for their turn, at worst.
	Fastest, Queued float64
	// What must not be.
	Missing, Doubled, False, PutOut, Strange []string

	counted sample
	times   map[end][]time.Duration // from leaving to the leave at the homeserver
}

// String is a table for people.
func (report *Report) String() string {
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	how := "with its token"
	if report.Stranger {
		how = "without a token"
	}
	fmt.Fprintf(out, "Passerelle %s\t\n", how)
	for _, row := range []struct {
		what  string
		count int
	}{
		{"clients", report.Clients},
		{"of them there at once, at most", report.Most},
		{"of them there at the end", report.There},
		{"leaves at the homeserver", report.Leaves},
		{"kill -9 of Passerelle", report.Kills},
		{"reports of the SFU that were lost", report.Lost},
		{"reports of the SFU that came twice", report.Repeated},
		{"left and no leave", len(report.Missing)},
		{"more than one leave", len(report.Doubled)},
		{"leaves of who was there", len(report.False)},
		{"put out", len(report.PutOut)},
		{"otherwise wrong", len(report.Strange)},
	} {
		fmt.Fprintf(out, "%s\t%d\n", row.what, row.count)
	}
	for _, what := range slices.Sorted(maps.Keys(report.counted.actions)) {
		fmt.Fprintf(out, "calls to the homeserver: %s\t%.0f\n", what, report.counted.actions[what])
	}
	fmt.Fprintf(out, "put off in a second, at best\t%.0f\n", report.Fastest)
	fmt.Fprintf(out, "calls that waited for their turn, at worst\t%.0f\n", report.Queued)
	for _, action := range []string{"restart", "send"} {
		fmt.Fprintf(out, "%s, how late\t%s\n", action, strings.Join(report.counted.within(action), ", "))
	}
	timing.Table(out, "gone to the leave at the homeserver", report.times)
	_ = out.Flush()
	fmt.Fprintf(&text, "\nin %s\n", report.Took.Round(time.Second))
	return text.String()
}

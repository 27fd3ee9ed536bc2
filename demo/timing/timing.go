// Package timing says of many times what people want to know: the one in the
// middle, the one that 95 of a hundred keep to, and the worst.
package timing

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Percentile is the time within which p of a hundred were; 0 if there are none.
func Percentile(times []time.Duration, p int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(times))[(p*len(times)+99)/100-1]
}

// Table writes a line for each thing that took its times, with tabs between its
// columns. The title stands above the things.
func Table[What ~string](out io.Writer, title string, times map[What][]time.Duration) {
	fmt.Fprintf(out, "\n%s\tcount\tmedian\t95 %%\tmax\n", title)
	for _, what := range slices.Sorted(maps.Keys(times)) {
		fmt.Fprintf(out, "%s\t%d", what, len(times[what]))
		for _, p := range []int{50, 95, 100} {
			fmt.Fprintf(out, "\t%s", Percentile(times[what], p).Round(time.Millisecond))
		}
		fmt.Fprintln(out)
	}
}

// Wait returns after a while, or earlier with why ctx is done.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package timing_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"passerelle/demo/timing"
)

func TestPercentile(t *testing.T) {
	var times []time.Duration
	require.Zero(t, timing.Percentile(times, 50))
	for n := range 60 {
		times = append(times, time.Duration(60-n))
	}
	require.EqualValues(t, 30, timing.Percentile(times, 50))
	require.EqualValues(t, 57, timing.Percentile(times, 95))
	require.EqualValues(t, 60, timing.Percentile(times, 99), "the worst, where there are fewer than a hundred")
	require.EqualValues(t, 60, timing.Percentile(times, 100))
	require.EqualValues(t, 7, timing.Percentile([]time.Duration{7}, 1))
}

func TestTable(t *testing.T) {
	var out strings.Builder
	timing.Table(&out, "what", map[string][]time.Duration{"b": {time.Second}, "a": {3 * time.Millisecond, time.Millisecond}})
	require.Equal(t, "\nwhat\tcount\tmedian\t95 %\tmax\na\t2\t1ms\t3ms\t3ms\nb\t1\t1s\t1s\t1s\n", out.String())
}

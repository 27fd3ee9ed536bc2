package caller

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestToneIsAWaveOfThatTone(t *testing.T) {
	for _, hz := range []int{100, 440, 1000, 8000} {
		t.Run(fmt.Sprint(hz), func(t *testing.T) {
			wav := tone(hz)
			le := binary.LittleEndian
			require.Equal(t, "RIFF", string(wav[:4]))
			require.EqualValues(t, len(wav)-8, le.Uint32(wav[4:]))
			require.Equal(t, "WAVEfmt ", string(wav[8:16]))
			require.EqualValues(t, 48_000, le.Uint32(wav[24:]))
			require.EqualValues(t, len(wav)-44, le.Uint32(wav[40:]))
			samples := make([]float64, (len(wav)-44)/2)
			for i := range samples {
				samples[i] = float64(int16(le.Uint16(wav[44+2*i:]))) / math.MaxInt16
			}
			require.InDelta(t, loudness/2, power(samples, hz), 0.001)
			for _, other := range []int{50, hz / 2, hz - 7, hz + 7, 2 * hz} {
				if other != hz {
					require.Less(t, power(samples, other), 0.001, "%d Hz", other)
				}
			}
		})
	}
}

// power is the amplitude of one tone in one second of samples, halved, by the
// sums of a Fourier series.
func power(samples []float64, hz int) float64 {
	var re, im float64
	for i, v := range samples {
		angle := 2 * math.Pi * float64(hz) * float64(i) / float64(len(samples))
		re += v * math.Cos(angle)
		im += v * math.Sin(angle)
	}
	return math.Hypot(re, im) / float64(len(samples))
}

func TestHeard(t *testing.T) {
	for name, test := range map[string]struct {
		peak, expected int
		want           bool
	}{
		"the tone":             {1000, 1000, true},
		"one bin beside":       {1006, 1000, true},
		"at the edge":          {988, 1000, true},
		"another":              {987, 1000, false},
		"silence":              {0, 1000, false},
		"any tone":             {300, 0, true},
		"any tone, none":       {0, 0, false},
		"the octave is not it": {2000, 1000, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, heard(test.peak, test.expected))
		})
	}
}

func TestRingKeepsTheLastLines(t *testing.T) {
	r := &ring{}
	require.Empty(t, r.lines())
	for i := range maxLines + 10 {
		r.add(fmt.Sprint(i))
	}
	lines := r.lines()
	require.Len(t, lines, maxLines)
	require.Equal(t, "10", lines[0])
	require.Equal(t, fmt.Sprint(maxLines+9), lines[maxLines-1])

	r.add(strings.Repeat("é", maxLine))
	lines = r.lines()
	require.Equal(t, strings.Repeat("é", maxLine/2)+"…", lines[maxLines-1])
}

func TestStderrFindsTheAddressInPieces(t *testing.T) {
	b := &browser{said: &ring{}, listen: make(chan string, 1)}
	w := &stderr{browser: b}
	for _, piece := range []string{"a warning\nDevTools list", "ening on ws://127.0.0.1:9/x\r", "\nanother\n", strings.Repeat("x", 3*maxLine), "\n"} {
		n, err := w.Write([]byte(piece))
		require.NoError(t, err)
		require.Equal(t, len(piece), n)
	}
	require.Equal(t, "ws://127.0.0.1:9/x", <-b.listen)
	require.Equal(t, []string{"a warning", "another", strings.Repeat("x", maxLine)}, b.said.lines())
}

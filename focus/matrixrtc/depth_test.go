package matrixrtc

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDepth(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`{"a":[`, n/2) + strings.Repeat("]}", n/2) }
	for text, want := range map[string]bool{
		nested(maxDepth):                     false,
		nested(maxDepth + 2):                 true,
		strings.Repeat("[", 30_000):          true,
		`"` + strings.Repeat("[", 100) + `"`: false,
		`"\"` + strings.Repeat("[", 100):     false,
		`"\\"` + strings.Repeat("[", 100):    true,
		strings.Repeat("[],", 1000):          false,
		"":                                   false,
		`"\`:                                 false,
	} {
		require.Equal(t, want, TooDeep([]byte(text)), "%.20s", text)
	}
}

// FuzzDepth holds it against a parser.
func FuzzDepth(f *testing.F) {
	f.Add(`{"a":["\"[[[",{"b":[]}]}`)
	f.Add(strings.Repeat("[", 40) + strings.Repeat("]", 40))
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) {
			return
		}
		decoder, depth, deepest := json.NewDecoder(strings.NewReader(text)), 0, 0
		for {
			token, err := decoder.Token()
			if err != nil {
				break
			}
			switch token {
			case json.Delim('['), json.Delim('{'):
				depth++
				deepest = max(deepest, depth)
			case json.Delim(']'), json.Delim('}'):
				depth--
			}
		}
		if got := TooDeep([]byte(text)); got != (deepest > maxDepth) {
			t.Fatalf("%q is %d deep, and too deep: %t", text, deepest, got)
		}
	})
}

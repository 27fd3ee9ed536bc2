package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Mistake is one thing that is wrong with a configuration.
type Mistake struct {
	// Key is the path of the key, such as server.public_url, or the name of an
	// environment variable.
	Key string
	// Wrong says what is wrong; Instead what to write.
	Wrong, Instead string
}

// String is one line for an operator.
func (m Mistake) String() string {
	if m.Instead == "" {
		return m.Key + ": " + m.Wrong
	}
	return fmt.Sprintf("%s: %s (%s)", m.Key, m.Wrong, m.Instead)
}

// Mistakes are all that is wrong with a configuration, sorted by key. None of
// them holds a secret.
type Mistakes []Mistake

// Error implements error: a line that counts them, then a line for each.
func (m Mistakes) Error() string {
	lines := make([]string, 0, len(m)+1)
	if len(m) == 1 {
		lines = append(lines, "The configuration has 1 mistake:")
	} else {
		lines = append(lines, fmt.Sprintf("The configuration has %d mistakes:", len(m)))
	}
	for _, mistake := range m {
		lines = append(lines, "  "+mistake.String())
	}
	return strings.Join(lines, "\n")
}

func (m *Mistakes) add(key, wrong, instead string) {
	*m = append(*m, Mistake{key, wrong, instead})
}

// err is nil when there are none.
func (m Mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	slices.SortStableFunc(m, func(a, b Mistake) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Wrong, b.Wrong))
	})
	return slices.CompactFunc(m, func(a, b Mistake) bool { return a == b })
}

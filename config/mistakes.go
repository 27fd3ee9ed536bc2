package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
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

// missing is what is wrong with a key that must be set.
const missing = "is missing"

// add notes a mistake. A key that is set wrongly, or stands in a section that
// could not be read, is not reported as missing as well.
func (m *Mistakes) add(key, wrong, instead string) {
	if wrong == missing && slices.ContainsFunc(*m, func(other Mistake) bool {
		return other.Key == key || strings.HasPrefix(key, other.Key+".")
	}) {
		return
	}
	*m = append(*m, Mistake{oneLine(key), oneLine(wrong), oneLine(instead)})
}

// longest bounds a part of a mistake; it may repeat what stands in the file.
const longest = 300

// oneLine makes a text fit for a terminal: one line, nothing invisible.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() >= longest {
			return b.String() + "…"
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// err is nil when there are none.
func (m Mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	slices.SortStableFunc(m, func(a, b Mistake) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Wrong, b.Wrong), strings.Compare(a.Instead, b.Instead))
	})
	return slices.CompactFunc(m, func(a, b Mistake) bool { return a == b })
}

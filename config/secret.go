package config

import (
	"encoding/json"
	"fmt"
	"io"
)

// Secret is a string that never prints: not by fmt, JSON, YAML or a logger.
// Reveal is the only way to read it. Two limits are fmt's own: it asks no
// method of a value in an unexported field, so structs with such a field must
// not be printed whole; nor for the verb %w, which vet allows for errors alone.
type Secret string

const redacted = "<secret>"

// Reveal returns the secret itself. Its callers hand it to whoever needs it
// and to nobody else.
func (s Secret) Reveal() string { return string(s) }

// String implements [fmt.Stringer].
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// Format implements [fmt.Formatter], so that no verb shows the secret; those
// that do not fit a text would otherwise print it in their complaint.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalJSON implements [json.Marshaler].
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

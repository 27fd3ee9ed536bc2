package config

import "encoding/json"

// Secret is a string that never prints: not by fmt, JSON, YAML or a logger.
// Reveal is the only way to read it.
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

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return s.String() }

// MarshalJSON implements [json.Marshaler].
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

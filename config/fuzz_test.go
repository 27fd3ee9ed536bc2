package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"passerelle/config"
)

// FuzzLoad reads any file together with any rules in the environment. Whatever
// they hold, the answer is a valid configuration or a list of mistakes that a
// terminal can show, and always the same.
func FuzzLoad(f *testing.F) {
	for _, file := range []string{exampleFile, "testdata/wrong.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "[]")
	}
	for _, text := range []string{
		"", "~", "server:", "a: &a [*a]", "a: {<<: {}}", "? [x]\n: y", "server: {listen: !!binary aGk=}", "---\n---",
		"federation: {rules: [{server: '*', access: join}]}", "livekit: {embedded: {port: 0x10, udp_port: 1e3, tcp_port: 99999999999999999999}}",
		"log: {level: 2024-01-01, format: .nan}", "\xff\xfe", "focus: {token_lifetime: 9999999999h}",
	} {
		f.Add([]byte(text), `[{"server": "*", "access": "create"}]`)
	}
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, text []byte, rules string) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		environ := []string{publicURL, unverified, "PASSERELLE_FEDERATION_RULES=" + rules}
		c, err := config.Load(path, environ)
		again, errAgain := config.Load(path, environ)
		if !reflect.DeepEqual(c, again) || !reflect.DeepEqual(err, errAgain) {
			t.Fatalf("a second time differs: %v, %v", err, errAgain)
		}
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Fatalf("loaded, and not valid: %v", err)
			}
			return
		}
		mistakes, ok := errors.AsType[config.Mistakes](err)
		if !ok || len(mistakes) == 0 || c != nil {
			t.Fatalf("not a list of mistakes: %v", err)
		}
		for _, m := range mistakes {
			if strings.ContainsFunc(m.String(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("not fit for a terminal: %q", m.String())
			}
		}
	})
}

package config_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"passerelle/config"
)

func docs(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/configuration.md")
	require.NoError(t, err)
	return string(text)
}

// TestDocsListEveryKey compares the table with the structs: each key once, in
// their order, with its default and with what applies a change.
func TestDocsListEveryKey(t *testing.T) {
	_, table, found := strings.Cut(docs(t), "## All keys")
	require.True(t, found)
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?` \\| .*? \\| .*?) \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		got = append(got, row[1])
		require.True(t, strings.HasSuffix(row[2], "."), "%s: its meaning is a sentence", row[1])
	}
	var want []string
	for _, k := range keys() {
		standard, fresh := config.Default(), config.Default()
		k.of(&fresh).Set(reflect.ValueOf(another(t, k)))
		applies := "reload"
		if _, restart := config.Changed(&standard, &fresh); len(restart) > 0 {
			applies = "restart"
		}
		want = append(want, fmt.Sprintf("`%s` | %s | %s", k.path, documented(k, k.of(&standard)), applies))
	}
	require.Empty(t, cmp.Diff(want, got))
}

// documented is a default as the table shows it.
func documented(k key, value reflect.Value) string {
	switch {
	case k.path == "server.public_url":
		return "none, required"
	case value.Kind() == reflect.String && value.Len() == 0, value.Kind() == reflect.Slice && value.Len() == 0:
		return "none"
	case value.Type() == reflect.TypeFor[time.Duration]():
		// 1h, not 1h0m0s.
		text := value.Interface().(time.Duration).String()
		return "`" + strings.Replace(strings.Replace(text, "m0s", "m", 1), "h0m", "h", 1) + "`"
	}
	return fmt.Sprintf("`%v`", value.Interface())
}

// TestDocsExamples loads what the page shows.
func TestDocsExamples(t *testing.T) {
	text := docs(t)
	block := func(from string) string {
		_, rest, found := strings.Cut(text, "```"+from+"\n")
		require.True(t, found)
		inside, _, found := strings.Cut(rest, "```\n")
		require.True(t, found)
		return inside
	}
	const token = "/etc/passerelle/as_token"
	require.Contains(t, block("yaml"), token)
	c, err := load(t, strings.Replace(block("yaml"), token, write(t, "as_token", goodSecret, 0o600), 1))
	require.NoError(t, err)
	require.Len(t, c.Federation.Rules, 2)

	var variables []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(.*?)` \\| `(PASSERELLE_.*?=.*)` \\|$").FindAllStringSubmatch(text, -1) {
		variables = append(variables, row[2])
		require.True(t, strings.HasPrefix(row[2], key{path: row[1]}.variable()+"="))
	}
	require.Len(t, variables, 4)
	_, err = config.Load("", append(variables, unverified))
	require.NoError(t, err)

	_, err = load(t, "server:\n  listn: ':1'\nlivekit: {embedded: {stun_servers: [stun.example.gouv.fr]}}\nfocus: {membership: unverified}\n")
	require.Contains(t, text, "\n```\n"+err.Error()+"\n```\n")
}

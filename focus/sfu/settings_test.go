package sfu_test

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"passerelle/focus/sfu"
)

func settings() sfu.Settings {
	return sfu.Settings{
		Dir: "/var/lib/passerelle", Port: 7880, UDPPort: 7882, TCPPort: 7881, NodeIP: "192.0.2.7",
		STUNServers: []string{"stun.example.org:3478"}, WebhookURL: "http://127.0.0.1:8081/sfu_webhook",
		OrphanTimeout: time.Minute, Key: "passerelle-00", Secret: strings.Repeat("s3cret", 8),
	}
}

func document(t testing.TB, change func(map[string]any)) string {
	t.Helper()
	encoded, err := json.Marshal(settings())
	require.NoError(t, err)
	var d map[string]any
	require.NoError(t, json.Unmarshal(encoded, &d))
	change(d)
	encoded, err = json.Marshal(d)
	require.NoError(t, err)
	return string(encoded)
}

func TestReadSettings(t *testing.T) {
	got, err := sfu.ReadSettings(strings.NewReader(document(t, func(map[string]any) {})))
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(settings(), got))

	without := func(key string) string { return document(t, func(d map[string]any) { delete(d, key) }) }
	for name, c := range map[string]struct{ said, want string }{
		"nothing":        {"", "not the JSON expected"},
		"no JSON":        {"dir: /tmp", "not the JSON expected"},
		"half":           {document(t, func(map[string]any) {})[:50], "not the JSON expected"},
		"two":            {document(t, func(map[string]any) {}) + "{}", "not the JSON expected"},
		"wrong type":     {document(t, func(d map[string]any) { d["port"] = "7880" }), "not the JSON expected"},
		"unknown key":    {document(t, func(d map[string]any) { d["ports"] = 1 }), "not the JSON expected"},
		"negative":       {document(t, func(d map[string]any) { d["port"] = -1 }), "missing"},
		"too large":      {strings.Repeat(" ", 40<<10), "too large"},
		"no folder":      {without("dir"), "missing"},
		"no port":        {without("port"), "missing"},
		"no UDP port":    {without("udp_port"), "missing"},
		"no address":     {without("node_ip"), "missing"},
		"no time":        {without("orphan_timeout"), "missing"},
		"no key":         {without("key"), "missing"},
		"no secret":      {without("secret"), "missing"},
		"null":           {"null", "missing"},
		"secret, broken": {document(t, func(d map[string]any) { d["x"] = "y" }), "not the JSON expected"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sfu.ReadSettings(strings.NewReader(c.said))
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
	t.Run("broken pipe", func(t *testing.T) {
		broken := errors.New("broken")
		_, err := sfu.ReadSettings(io.MultiReader(strings.NewReader("{"), iotest.ErrReader(broken)))
		require.ErrorIs(t, err, broken)
	})
}

func FuzzReadSettings(f *testing.F) {
	f.Add(document(f, func(map[string]any) {}))
	f.Add("{}")
	f.Add(`{"dir":"d","port":1,"udp_port":1,"node_ip":"n","orphan_timeout":1,"key":"k","secret":"s","stun_servers":null}`)
	f.Fuzz(func(t *testing.T, said string) {
		s, err := sfu.ReadSettings(strings.NewReader(said))
		if err != nil {
			return
		}
		encoded, err := json.Marshal(s)
		require.NoError(t, err)
		again, err := sfu.ReadSettings(strings.NewReader(string(encoded)))
		require.NoError(t, err)
		require.Equal(t, s.Fingerprint(), again.Fingerprint())
	})
}

// TestFingerprint changes each field in turn.
func TestFingerprint(t *testing.T) {
	seen := map[string]string{settings().Fingerprint(): "nothing"}
	require.NotContains(t, settings().Fingerprint(), "s3cret")
	require.Equal(t, settings().Fingerprint(), settings().Fingerprint())
	for i := range reflect.TypeFor[sfu.Settings]().NumField() {
		s := settings()
		field := reflect.ValueOf(&s).Elem().Field(i)
		switch field.Kind() {
		case reflect.String:
			field.SetString(field.String() + "x")
		case reflect.Int, reflect.Int64:
			field.SetInt(field.Int() + 1)
		case reflect.Bool:
			field.SetBool(!field.Bool())
		case reflect.Slice:
			field.SetLen(0)
		default:
			require.FailNow(t, "a field of a new kind", field.Kind())
		}
		name := reflect.TypeFor[sfu.Settings]().Field(i).Name
		require.NotContains(t, seen, s.Fingerprint(), name)
		seen[s.Fingerprint()] = name
	}
}

package config_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"passerelle/config"
)

// TestSecretNeverPrints shows a secret, and structs and pointers that hold it,
// to everything that could print it.
func TestSecretNeverPrints(t *testing.T) {
	const hidden = "hunter2"
	secret := config.Secret(hidden)
	c := config.Default()
	c.Database.URI, c.LiveKit.Secret = secret, secret
	for name, value := range map[string]any{
		"itself": secret, "pointer": &secret, "section": c.Database, "whole": c, "whole by pointer": &c,
		"list": []config.Secret{secret}, "map": map[string]any{"secret": secret},
	} {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%T", "%z", "%10.3s"} {
				require.NotContains(t, fmt.Sprintf(verb, value), hidden, verb)
				require.NotContains(t, fmt.Sprintf(verb, value), fmt.Sprintf("%x", hidden), verb)
			}
			require.NotContains(t, fmt.Sprint(value), hidden)
			require.NotContains(t, fmt.Errorf("open: %v", value).Error(), hidden)
			asJSON, err := json.Marshal(value)
			require.NoError(t, err)
			require.NotContains(t, string(asJSON), hidden)
			asYAML, err := yaml.Marshal(value)
			require.NoError(t, err)
			require.NotContains(t, string(asYAML), hidden)
			var log bytes.Buffer
			logger := zerolog.New(&log)
			logger.Info().Any("value", value).Interface("again", value).Msg("A secret")
			slog.New(slog.NewJSONHandler(&log, nil)).Info("A secret", "value", value)
			slog.New(slog.NewTextHandler(&log, nil)).Info("A secret", "value", value)
			require.Contains(t, log.String(), "A secret")
			require.NotContains(t, log.String(), hidden)
		})
	}
	var log bytes.Buffer
	logger := zerolog.New(&log)
	logger.Info().Stringer("secret", secret).Send()
	require.Equal(t, `{"level":"info","secret":"<secret>"}`+"\n", log.String())
	asXML, err := xml.Marshal(secret)
	require.NoError(t, err)
	require.NotContains(t, string(asXML), hidden)

	require.Equal(t, hidden, secret.Reveal())
	require.Equal(t, "<secret>", fmt.Sprintf("%v", secret))
	require.Empty(t, fmt.Sprintf("%v", config.Secret("")), "one that is not set looks so")
}

package config_test

import (
	"strings"
	"testing"

	"passerelle/config"
)

func TestValidateHomeserver(t *testing.T) {
	good := config.Homeserver{ServerName: "example.org", URL: "http://127.0.0.1:8008"}
	with := func(f func(*config.Homeserver)) change {
		return func(c *config.Config) { c.Homeserver = good; f(&c.Homeserver) }
	}
	name := func(s string) change { return with(func(h *config.Homeserver) { h.ServerName = s }) }
	check(t, []rule{{"homeserver", []change{
		with(func(*config.Homeserver) {}),
		name("matrix.example.org:8448"), name("[2001:db8::1]:8448"), name("127.0.0.1:28448"), name("localhost"),
		with(func(h *config.Homeserver) { h.URL, h.ASToken = "https://matrix.example.org/prefix", goodSecret }),
	}, []wrong{
		{"homeserver.server_name: is missing (write the part of your users' IDs after the first colon)", name("")},
		{"homeserver.server_name: has capital letters (write example.org)", name("Example.org")},
		{`homeserver.server_name: "https://example.org" is not a server name (write the part of your users' IDs after the first colon, such as`, name("https://example.org")},
		{`homeserver.server_name: "example.org/" is not a server name`, name("example.org/")},
		{`homeserver.server_name: "@ana:example.org" is not a server name`, name("@ana:example.org")},
		{`homeserver.server_name: "*.example.org" is not a server name`, name("*.example.org")},
		{`homeserver.server_name: " example.org" is not a server name`, name(" example.org")},
		{`homeserver.server_name: "a`, name(strings.Repeat("a", 256))},
		{"homeserver.url: is missing", with(func(h *config.Homeserver) { h.URL = "" })},
		{"homeserver.url: is not an address", with(func(h *config.Homeserver) { h.URL = "127.0.0.1:8008" })},
		{"homeserver.url: is not an address", with(func(h *config.Homeserver) { h.URL = "ws://127.0.0.1:8008" })},
		{"homeserver.url: holds more than", with(func(h *config.Homeserver) { h.URL = "http://me@127.0.0.1:8008" })},
		{"homeserver.as_token: is shorter than 32", with(func(h *config.Homeserver) { h.ASToken = "short" })},
		{"homeserver.as_token: holds characters that do not travel in a header", with(func(h *config.Homeserver) { h.ASToken = goodSecret + " " })},
		{"homeserver.hs_token: holds characters that do not travel in a header", with(func(h *config.Homeserver) { h.HSToken = "é" + goodSecret })},
		{"homeserver.hs_token: can be guessed", with(func(h *config.Homeserver) { h.HSToken = "changeme-changeme-changeme-changeme" })},
		{"homeserver.listen: is not an address to listen on", with(func(h *config.Homeserver) { h.Listen, h.HSToken = "8090", goodSecret })},
		{"homeserver.hs_token: is missing", with(func(h *config.Homeserver) { h.Listen = "127.0.0.1:8090" })},
		{"homeserver.hs_token: is the same as homeserver.as_token", with(func(h *config.Homeserver) { h.ASToken, h.HSToken = goodSecret, goodSecret })},
	}}})
}

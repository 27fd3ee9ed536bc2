package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A registration that would not work is not written.
func TestRegistrationIsNotWritten(t *testing.T) {
	const good, other = "d128760b6e9c841f7985fbac3be08a6460a76ef835beaeceae36a9e6abb37eb7", "5584b89af0b2017d4110b71b2ae63d744b5dadcfccccbe7d631800be049f2c39"
	listen := "{listen: 127.0.0.1:8090, as_token: " + good + ", hs_token: " + other + "}"
	for name, c := range map[string]struct{ homeserver, proxyURL, want string }{
		"a word as address":          {listen, "here", "-proxy-url"},
		"an address with a space":    {listen, "http://10.1.2.3:8090/ x", "-proxy-url"},
		"an address without scheme":  {listen, "10.1.2.3:8090", "-proxy-url"},
		"an address with a query":    {listen, "http://10.1.2.3:8090?x", "-proxy-url"},
		"an address nobody hears at": {strings.Replace(listen, "listen: 127.0.0.1:8090, ", "", 1), "http://10.1.2.3:8090", "homeserver.listen is empty"},
		"a short token":              {strings.Replace(listen, good, "short", 1), "", "homeserver.as_token: is shorter"},
		"one token twice":            {strings.Replace(listen, other, good, 1), "", "homeserver.hs_token: is the same"},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			file, out := filepath.Join(folder, "config.yaml"), filepath.Join(folder, "registration.yaml")
			require.NoError(t, os.WriteFile(file, []byte("homeserver: "+c.homeserver+"\n"), 0o600))
			var said bytes.Buffer
			require.Equal(t, 1, registration(registrationSettings{config: file, out: out, proxyURL: c.proxyURL}, &said, &said))
			require.Contains(t, said.String(), c.want)
			require.NotContains(t, said.String(), good)
			require.NoFileExists(t, out)

			require.NoError(t, os.WriteFile(file, []byte("homeserver: "+listen+"\n"), 0o600))
			require.Zero(t, registration(registrationSettings{config: file, out: out, proxyURL: "http://10.1.2.3:8090"}, &said, &said))
			written, err := os.ReadFile(out)
			require.NoError(t, err)
			require.Contains(t, string(written), "proxy_url: http://10.1.2.3:8090\n")
		})
	}
}

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"passerelle/config"
	"passerelle/focus/homeserver"
)

// registrationSettings are the flags of `passerelle registration focus`.
type registrationSettings struct {
	config, out, proxyURL string
}

// registration writes the registration for the homeserver, with the tokens that
// the configuration has or names files for, and says what else is to be written
// where. The file goes to stdout, or to out; what is said goes to stderr.
func registration(s registrationSettings, stdout, stderr io.Writer) int {
	text, err := makeRegistration(&s, stderr)
	if err == nil && s.out == "" {
		_, err = stdout.Write(text)
	} else if err == nil {
		err = writeNew(s.out, text)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	file := "/etc/matrix-synapse/passerelle-focus.yaml"
	if s.out != "" {
		file, _ = filepath.Abs(s.out)
	}
	fmt.Fprintf(stderr, "\nThe homeserver alone may read the registration. In homeserver.yaml, and restart it:\n\n%s\n"+
		"Then ask whether all is as it should be: passerelle check -config %s\n", homeserver.HomeserverLines(file), s.config)
	return 0
}

func makeRegistration(s *registrationSettings, stderr io.Writer) ([]byte, error) {
	c, err := config.Draft(s.config, os.Environ())
	if err != nil {
		return nil, err
	}
	h := c.Homeserver
	if h.ASToken, err = token("homeserver.as_token", h.ASToken, h.ASTokenFile, stderr); err != nil {
		return nil, err
	}
	if h.HSToken, err = token("homeserver.hs_token", h.HSToken, h.HSTokenFile, stderr); err != nil {
		return nil, err
	}
	if err := h.CheckTokens(); err != nil {
		return nil, err
	}
	proxyURL := s.proxyURL
	switch {
	case proxyURL != "" && !isProxyURL(proxyURL):
		return nil, fmt.Errorf("-proxy-url: %q is not an address (write http:// and where the homeserver reaches homeserver.listen, such as http://10.1.2.3:8090)", proxyURL)
	case proxyURL != "" && h.Listen == "":
		return nil, errors.New("-proxy-url: homeserver.listen is empty, so nobody listens there (write homeserver: {listen: 127.0.0.1:8090}, or an address that the homeserver reaches)")
	case h.Listen == "":
		fmt.Fprintln(stderr, "homeserver.listen is empty, so the homeserver hands over nothing; newer clients need it (write 127.0.0.1:8090)")
	case proxyURL == "":
		proxyURL = "http://" + reached(h.Listen)
	}
	return homeserver.Registration{ASToken: h.ASToken.Reveal(), HSToken: h.HSToken.Reveal(), ProxyURL: proxyURL}.YAML()
}

// isProxyURL tells whether a homeserver can send requests to the address.
func isProxyURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Hostname() != "" && (u.Scheme == "http" || u.Scheme == "https") &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && !strings.ContainsFunc(text, unicode.IsSpace)
}

// token is the secret that the configuration holds, or that the file which it
// names does; the file is made when it is not there.
func token(key string, inline config.Secret, file string, stderr io.Writer) (config.Secret, error) {
	switch {
	case inline != "":
		return inline, nil
	case file == "":
		name := key[len("homeserver."):]
		return "", errors.New(key + "_file: is missing (write homeserver: {" + name + "_file: /etc/passerelle/" + name + "}; the file is made)")
	}
	secret, made, err := config.NewSecretFile(key+"_file", file)
	if made {
		fmt.Fprintf(stderr, "%s: made %s; Passerelle's user must be able to read it\n", key+"_file", file)
	}
	return secret, err
}

// reached is the address at which the homeserver, taken to be on this machine,
// reaches a listener.
func reached(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return listen
}

// writeNew writes a file that only its owner can read, and never over another.
func writeNew(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

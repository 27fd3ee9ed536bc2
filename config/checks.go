package config

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// minSecret is LiveKit's own least length.
const minSecret = 32

// wellKnown are parts of secrets that stand in documentation and sample files,
// without what such files put between words.
var wellKnown = []string{
	"secret", "devkey", "changeme", "changethis", "password", "passphrase", "replace", "example", "placeholder", "insecure",
	"yourlivekit", "yourapi", "yourkey", "livekitkey", "atleast32", "0123456789", "abcdefgh",
}

// betweenWords is what sample files put between the words of a secret.
var betweenWords = strings.NewReplacer("-", "", "_", "", ".", "", " ", "")

// checkSecret refuses what anybody could guess. Its message says nothing of
// the secret.
func checkSecret(m *Mistakes, key, id string, secret Secret) {
	const instead = "make one with: openssl rand -hex 32"
	text := strings.ToLower(secret.Reveal())
	words := betweenWords.Replace(text)
	distinct := map[rune]bool{}
	for _, r := range text {
		distinct[r] = true
	}
	switch {
	case len(text) < minSecret:
		m.add(key, "is shorter than "+strconv.Itoa(minSecret)+" characters", instead)
	case len(distinct) < 8 || id != "" && text == strings.ToLower(id),
		slices.ContainsFunc(wellKnown, func(known string) bool { return strings.Contains(words, known) }):
		m.add(key, "can be guessed or stands in a public sample", instead)
	}
}

func checkAddress(m *Mistakes, key, address, example string) {
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.Atoi(port)
	if err != nil || portErr != nil || number < 0 || number > 65535 || host != "" && net.ParseIP(host) == nil {
		m.add(key, "is not an address to listen on", "write an IP address and a port, such as "+example)
	}
}

func checkWord(m *Mistakes, key, word string, allowed ...string) {
	if slices.Contains(allowed, word) {
		return
	}
	wrong := missing
	if word != "" {
		wrong = strconv.Quote(word) + " is not known here"
	}
	last := len(allowed) - 1
	m.add(key, wrong, "write "+strings.Join(allowed[:last], ", ")+" or "+allowed[last])
}

func checkRange(m *Mistakes, key string, n, low, high int) {
	if n < low || n > high {
		m.add(key, "is out of range", "write a number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high))
	}
}

func checkNetworks(m *Mistakes, key string, networks []string) {
	for _, network := range networks {
		if prefix, err := netip.ParsePrefix(network); err != nil {
			m.add(key, strconv.Quote(network)+" is not an address range", "write a CIDR such as 10.1.0.0/16")
		} else if prefix != prefix.Masked() {
			m.add(key, network+" is not the beginning of its range", "write "+prefix.Masked().String())
		}
	}
}

func checkDuration(m *Mistakes, key string, d, low, high time.Duration) {
	if d < low || d > high {
		m.add(key, "is out of range", "write a duration from "+shortDuration(low)+" to "+shortDuration(high))
	}
}

// checkBounds checks how large and how long a call may become.
func checkBounds(m *Mistakes, section string, participants int, longest time.Duration) {
	checkRange(m, section+".max_participants", participants, 0, 10000)
	if longest != 0 {
		checkDuration(m, section+".longest_call", longest, time.Minute, 30*24*time.Hour)
	}
}

// shortDuration is a duration as people write it: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	number, portErr := strconv.Atoi(port)
	return err == nil && host != "" && portErr == nil && number > 0 && number < 65536
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// isPostgresURI accepts both forms that PostgreSQL's drivers read: a URI, and
// words such as host=… dbname=….
func isPostgresURI(s string) bool {
	if scheme, _, isURI := strings.Cut(s, "://"); isURI {
		_, err := url.Parse(s)
		return err == nil && (scheme == "postgres" || scheme == "postgresql")
	}
	return strings.Contains(s, "=")
}

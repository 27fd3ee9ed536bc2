package matrixrtc

import (
	"errors"
	"net/url"
	"strings"
)

// maxTransport bounds the address of a media server, in bytes.
const maxTransport = 255

// ErrTransport is returned for what is no address of a media server.
var ErrTransport = errors.New("not the address of a media server")

// Transport is the address of a media server (MSC4195, url) in the one form in
// which addresses can be compared. It is announced once and copied by all, so
// other spellings are rare and mean the same: another case of the host, the
// port that the scheme has anyway, a slash at the end.
type Transport struct {
	scheme, host, path string
}

// ParseTransport reads an address: ws or wss, a host, maybe a port and a path,
// and nothing else.
func ParseTransport(address string) (Transport, error) {
	if len(address) > maxTransport {
		return Transport{}, ErrTransport
	}
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(address, "#") {
		return Transport{}, ErrTransport
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "wss":
		host = strings.TrimSuffix(host, ":443")
	case "ws":
		host = strings.TrimSuffix(host, ":80")
	default:
		return Transport{}, ErrTransport
	}
	return Transport{u.Scheme, host, strings.TrimRight(u.EscapedPath(), "/")}, nil
}

// Host is the host in lower case, without its port; an address of IPv6 is
// without its brackets.
func (t Transport) Host() string { return (&url.URL{Host: t.host}).Hostname() }

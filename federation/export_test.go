package federation

import "time"

// Through makes connections to an address, host:port before it is looked up,
// go to another port. Tests cannot listen at 443 and 8448.
func (o *Options) Through(f func(address string) string) { o.through = f }

// Dialled is told each address that is connected to, whether or not anybody is
// there.
func (o *Options) Dialled(f func(address string)) { o.dialled = f }

// Subject is what a userinfo answer of a server says.
var Subject = subject

// ValidServerName is the grammar of server names.
var ValidServerName = validServerName

// ClientBase is where a document for clients says that the API is.
var ClientBase = clientBase

// ParseXMatrix reads Authorization headers.
func ParseXMatrix(headers []string) (origin, destination, key, signature string, err error) {
	x, err := parseXMatrix(headers)
	return x.origin, x.destination, x.key, x.signature, err
}

// SetClock makes the keys of other servers end by another clock.
func (s *Signatures) SetClock(now func() time.Time) { s.keys.now = now }

// KeyServers is how many servers' keys are kept.
func (s *Signatures) KeyServers() int {
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	return s.keys.known.Len()
}

// ReadKeys reads what a server answers that is asked for its keys.
func ReadKeys(body []byte, server string, now time.Time) (int, time.Time, error) {
	_, keys, until, err := readKeys(body, server, now)
	return len(keys), until, err
}

package federation

import (
	"errors"
	"strings"
)

const (
	// maxAuthorization bounds the header. With names of the greatest length it
	// has some 900 bytes.
	maxAuthorization = 2048
	// maxParameters bounds how many parameters it has; four are known.
	maxParameters = 16
)

var errHeader = errors.New("the Authorization header is not one of X-Matrix, with origin, destination, key and sig once each")

// xMatrix is what the Authorization header of a request between homeservers
// says (server-server API, "Request Authentication").
type xMatrix struct {
	origin, destination, key, signature string
}

// parseXMatrix reads the header strictly (RFC 9110, 11.4): exactly one, each
// parameter once, so that nobody in between can have read it otherwise. Names
// are in any case, unknown ones are passed over, values are quoted or not;
// those without quotes may hold colons, as they did before version 1.3 of the
// specification. mautrix' own parser takes the last of two, and drops what it
// cannot read.
func parseXMatrix(headers []string) (xMatrix, error) {
	if len(headers) != 1 || len(headers[0]) > maxAuthorization {
		return xMatrix{}, errHeader
	}
	scheme, rest, ok := strings.Cut(headers[0], " ")
	if !ok || !strings.EqualFold(scheme, "X-Matrix") {
		return xMatrix{}, errHeader
	}
	values := map[string]string{}
	for rest = skipBlanks(rest); rest != ""; {
		name, value, left, ok := parameter(rest)
		if _, twice := values[name]; !ok || twice || len(values) == maxParameters {
			return xMatrix{}, errHeader
		}
		values[name] = value
		rest = skipBlanks(left)
		if rest == "" {
			break
		}
		// A comma, and something after it.
		if rest[0] != ',' {
			return xMatrix{}, errHeader
		}
		if rest = skipBlanks(rest[1:]); rest == "" {
			return xMatrix{}, errHeader
		}
	}
	x := xMatrix{values["origin"], values["destination"], values["key"], values["sig"]}
	if x.origin == "" || x.destination == "" || x.key == "" || x.signature == "" {
		return xMatrix{}, errHeader
	}
	return x, nil
}

// parameter reads name=value from the beginning of the text. The name is in
// lower case.
func parameter(text string) (name, value, rest string, ok bool) {
	end := strings.IndexFunc(text, func(r rune) bool { return !tokenRune(r) })
	if end <= 0 {
		return "", "", "", false
	}
	name, rest = strings.ToLower(text[:end]), skipBlanks(text[end:])
	if !strings.HasPrefix(rest, "=") {
		return "", "", "", false
	}
	rest = skipBlanks(rest[1:])
	if strings.HasPrefix(rest, `"`) {
		value, rest, ok = quoted(rest[1:])
		return name, value, rest, ok
	}
	end = strings.IndexFunc(rest, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`",\`, r) })
	if end < 0 {
		end = len(rest)
	}
	return name, rest[:end], rest[end:], end > 0
}

// quoted reads a quoted string whose first quote is read already.
func quoted(text string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			c = text[i]
		}
		if c < ' ' || c > '~' {
			return "", "", false
		}
		b.WriteByte(c)
	}
	return "", "", false
}

func skipBlanks(text string) string { return strings.TrimLeft(text, " \t") }

// tokenRune: RFC 9110, 5.6.2.
func tokenRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

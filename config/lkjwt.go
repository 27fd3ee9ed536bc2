package config

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// skipVerifyTLS is what LIVEKIT_INSECURE_SKIP_VERIFY_TLS must be to mean it.
const skipVerifyTLS = "YES_I_KNOW_WHAT_I_AM_DOING"

// lkJWT reads the variables of lk-jwt-service into a configuration. An empty
// variable is one that is not set.
type lkJWT struct {
	set      map[string]string
	mistakes *Mistakes
	c        *Config
}

func (v *lkJWT) read() {
	v.readSFU()
	v.readKey()
	v.readAddress()
	v.readFullAccess()
	v.readLogLevel()
	v.readClientAPIs()
	v.readRedis()
	v.readAppservice()
	d := v.c.DropIn
	d.SanityCheckInterval = v.seconds("LIVEKIT_SANITY_CHECK_INTERVAL_SECONDS", 0)
	d.MembershipCheckInterval = v.seconds("LIVEKIT_MEMBERSHIP_CHECK_INTERVAL_SECONDS", 30*time.Second)
	d.CanUpdateOwnMetadata = v.truth("LIVEKIT_CAN_UPDATE_OWN_METADATA")
	switch v.set["LIVEKIT_INSECURE_SKIP_VERIFY_TLS"] {
	case "":
	case skipVerifyTLS:
		d.SkipVerifyTLS = true
		v.warn("LIVEKIT_INSECURE_SKIP_VERIFY_TLS is on: whoever stands between here and a homeserver can pose as any of its users")
	default:
		v.warn("LIVEKIT_INSECURE_SKIP_VERIFY_TLS has not the value that switches it on: certificates are checked")
	}
}

func (v *lkJWT) warn(text string) { v.c.DropIn.Warnings = append(v.c.DropIn.Warnings, text) }

// readSFU: clients are given the address as it stands there.
func (v *lkJWT) readSFU() {
	const name, example = "LIVEKIT_URL", "write the address that clients reach LiveKit at, such as wss://sfu.example.gouv.fr"
	text := v.set[name]
	u, err := url.Parse(text)
	switch {
	case text == "":
		v.mistakes.add(name, missing, example)
	case err != nil || u.Hostname() == "" || !slices.Contains([]string{"ws", "wss", "http", "https"}, u.Scheme):
		v.mistakes.add(name, "is not an address", example)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		v.mistakes.add(name, "holds more than scheme, host and path", example)
	}
	v.c.LiveKit.URL, v.c.LiveKit.PublicURL = text, text
}

// readKey: one file with both wins over everything, and a file over what
// stands in the variable itself.
func (v *lkJWT) readKey() {
	livekit := &v.c.LiveKit
	if file := v.set["LIVEKIT_KEY_FILE"]; file != "" {
		text, ok := v.readFile("LIVEKIT_KEY_FILE", file)
		key, secret, _ := strings.Cut(text, ":")
		livekit.Key, livekit.Secret = strings.TrimSpace(key), Secret(strings.TrimSpace(secret))
		if ok && (strings.Count(text, ":") != 1 || livekit.Key == "" || livekit.Secret == "") {
			v.mistakes.add("LIVEKIT_KEY_FILE", file+" is not one line of the form key: secret", "write LiveKit's API key ID, a colon and its secret")
		}
	} else {
		livekit.Key = v.plainOrFile("LIVEKIT_KEY", "write the ID of LiveKit's API key")
		livekit.Secret = Secret(v.plainOrFile("LIVEKIT_SECRET", "write the secret of LiveKit's API key"))
	}
	v.warnOfSecret("the secret of LiveKit's API key", livekit.Key, livekit.Secret)
}

// warnOfSecret: an installation that exists must start, and its operator hear
// of it.
func (v *lkJWT) warnOfSecret(what, id string, secret Secret) {
	var found Mistakes
	if secret == "" {
		return
	}
	checkSecret(&found, what, id, secret)
	for _, mistake := range found {
		v.warn("anybody can make tokens here: " + mistake.String())
	}
}

// plainOrFile is the value of a variable, or of the file that the variable
// with _FROM_FILE names.
func (v *lkJWT) plainOrFile(name, instead string) string {
	file := v.set[name+"_FROM_FILE"]
	if file == "" {
		if v.set[name] == "" {
			v.mistakes.add(name, missing, instead+", or name a file that holds it in "+name+"_FROM_FILE")
		}
		return v.set[name]
	}
	text, ok := v.readFile(name+"_FROM_FILE", file)
	if ok && (text == "" || strings.ContainsAny(text, "\r\n\x00")) {
		v.mistakes.add(name+"_FROM_FILE", file+" does not hold one line", instead+" and nothing else")
	}
	return text
}

// readFile reads a file of the operator's. Those that Kubernetes mounts can be
// read by everybody in the container, so that is no mistake here.
func (v *lkJWT) readFile(name, path string) (text string, ok bool) {
	data, err := readBounded(path)
	if err != nil {
		v.mistakes.add(name, plainFileError(err), "name a file that can be read")
		return "", false
	}
	return strings.TrimSpace(string(data)), true
}

func (v *lkJWT) readAddress() {
	bind, port := v.set["LIVEKIT_JWT_BIND"], v.set["LIVEKIT_JWT_PORT"]
	switch {
	case bind != "" && port != "":
		v.mistakes.add("LIVEKIT_JWT_PORT", "stands beside LIVEKIT_JWT_BIND", "keep LIVEKIT_JWT_BIND")
	case port != "":
		v.checkBind("LIVEKIT_JWT_PORT", ":"+port, "write a port, such as 8080")
	case bind != "":
		v.checkBind("LIVEKIT_JWT_BIND", bind, "write an address and a port, such as :8080 or 127.0.0.1:8080")
	}
}

// checkBind allows host names too: they were allowed there.
func (v *lkJWT) checkBind(name, address, instead string) {
	_, port, err := net.SplitHostPort(address)
	if number, portErr := strconv.Atoi(port); err != nil || portErr != nil || number < 0 || number > 65535 {
		v.mistakes.add(name, "is not an address to listen on", instead)
		return
	}
	v.c.Server.Listen = address
}

// readFullAccess reads names separated by commas and spaces. A star means
// everybody where it stands alone, and nobody beside names.
func (v *lkJWT) readFullAccess() {
	const name = "LIVEKIT_FULL_ACCESS_HOMESERVERS"
	names := strings.FieldsFunc(v.set[name], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
	if len(names) == 0 {
		v.mistakes.add(name, missing, "write the names of the homeservers whose users may start calls, separated by commas, or * for all")
		return
	}
	if len(names) == 1 && names[0] == "*" {
		v.c.DropIn.Everybody = true
		v.warn(name + " is *: users of every homeserver in the world may start calls here")
		return
	}
	if slices.Contains(names, "*") {
		v.warn(name + " holds * beside names: it counts alone only, and means nobody here")
	}
	v.c.DropIn.FullAccess = names
}

func (v *lkJWT) readLogLevel() {
	level := strings.ToLower(v.set["LIVEKIT_LOG_LEVEL"])
	switch level {
	case "":
	case "trace", "debug", "info", "warn", "error":
		v.c.Log.Level = level
	case "warning":
		v.c.Log.Level = "warn"
	default:
		v.warn("LIVEKIT_LOG_LEVEL is none of debug, info, warn, error: " + v.c.Log.Level + " is used")
	}
}

// readClientAPIs reads name=address, separated by commas.
func (v *lkJWT) readClientAPIs() {
	const name, example = "LIVEKIT_CS_API_URL_OVERRIDES", "write example.org=https://matrix.example.org, separated by commas"
	v.c.DropIn.ClientAPIs = map[string]string{}
	if v.set[name] == "" {
		return
	}
	for item := range strings.SplitSeq(v.set[name], ",") {
		server, address, _ := strings.Cut(strings.TrimSpace(item), "=")
		server, address = strings.TrimSpace(server), strings.TrimSpace(address)
		u, err := url.Parse(address)
		if server == "" || err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			v.mistakes.add(name, strconv.Quote(server)+" has no address of the form name=address", example)
			continue
		}
		v.c.DropIn.ClientAPIs[server] = strings.TrimRight(address, "/")
	}
}

func (v *lkJWT) readRedis() {
	const name = "LIVEKIT_REDIS_URL"
	d := v.c.DropIn
	d.RedisURL, d.RedisPassword = Secret(v.set[name]), Secret(v.set["LIVEKIT_REDIS_PASSWORD"])
	if d.RedisURL == "" {
		if d.RedisPassword != "" {
			v.warn("LIVEKIT_REDIS_PASSWORD is set and " + name + " is not: no Redis is used")
		}
		return
	}
	// The address may hold a password, and net/url repeats it in its errors.
	u, err := url.Parse(d.RedisURL.Reveal())
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" {
		v.mistakes.add(name, "is not an address of a Redis", "write redis://redis.example.gouv.fr:6379/0")
	}
}

// readAppservice fills in the homeserver, when the variables say that there is
// a registration at one: all of them or none.
func (v *lkJWT) readAppservice() {
	h := &v.c.Homeserver
	const file = "LIVEKIT_AS_REGISTRATION_FILE"
	h.ServerName = v.set["LIVEKIT_HS_SERVER_NAME"]
	h.ASToken, h.HSToken = Secret(v.set["LIVEKIT_AS_TOKEN"]), Secret(v.set["LIVEKIT_HS_TOKEN"])
	if path := v.set[file]; path != "" {
		h.ASToken, h.HSToken = v.readRegistration(file, path)
	}
	if h.ServerName == "" && h.ASToken == "" && h.HSToken == "" && v.set[file] == "" {
		return
	}
	for name, value := range map[string]string{
		"LIVEKIT_HS_SERVER_NAME": h.ServerName, "LIVEKIT_AS_TOKEN": h.ASToken.Reveal(), "LIVEKIT_HS_TOKEN": h.HSToken.Reveal(),
	} {
		if value == "" && (name == "LIVEKIT_HS_SERVER_NAME" || v.set[file] == "") {
			v.mistakes.add(name, missing, "set it, or none of the application service's variables")
		}
	}
	v.warnOfSecret("the as_token of the registration", "", h.ASToken)
	v.warnOfSecret("the hs_token of the registration", "", h.HSToken)
	v.c.Focus.Membership = "required"
	h.URL = v.c.DropIn.ClientAPIs[h.ServerName] // else it is looked up
}

// readRegistration reads the two tokens of an application service's
// registration (client-server API, "Application Service API").
func (v *lkJWT) readRegistration(name, path string) (as, hs Secret) {
	text, ok := v.readFile(name, path)
	if !ok {
		return "", ""
	}
	var registration struct {
		ASToken string `yaml:"as_token"`
		HSToken string `yaml:"hs_token"`
	}
	// The error may repeat what stands in the file.
	err := yaml.Unmarshal([]byte(text), &registration)
	if err != nil || registration.ASToken == "" || registration.HSToken == "" {
		v.mistakes.add(name, path+" is not a registration with as_token and hs_token", "name the file that the homeserver reads too")
	}
	return Secret(registration.ASToken), Secret(registration.HSToken)
}

func (v *lkJWT) seconds(name string, standard time.Duration) time.Duration {
	const longest = 24 * 60 * 60
	text := v.set[name]
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 0 || n > longest {
		v.mistakes.add(name, "is not a number of seconds", "write a whole number from 0 (never) to "+strconv.Itoa(longest))
	}
	return time.Duration(n) * time.Second
}

func (v *lkJWT) truth(name string) bool {
	switch strings.ToLower(v.set[name]) {
	case "", "false", "0":
		return false
	case "true", "1":
		return true
	}
	v.mistakes.add(name, "is neither true nor false", "write true or false")
	return false
}

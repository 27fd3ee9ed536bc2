package homeserver

import (
	"context"
	"encoding/json"
	"net/http"

	"maunium.net/go/mautrix/id"
)

// Finding is one thing about the homeserver that is not as it should be.
type Finding struct {
	// Wrong says what, Costs what does not work because of it, and Mend is the
	// line that mends it.
	Wrong, Costs, Mend string
}

// String is one line for an operator.
func (f Finding) String() string { return f.Wrong + ": " + f.Costs + " (" + f.Mend + ")" }

// CheckOptions say what the homeserver should be able to do.
type CheckOptions struct {
	// Proxied: it hands requests over to us.
	Proxied bool
	// ProbePath and ProbeAnswer are a request that, through the homeserver,
	// reaches us, and our answer to it.
	ProbePath, ProbeAnswer string
}

// probeRoom is a room that there is not. Its ID is well formed in all versions.
const probeRoom = id.RoomID("!passerelle-check:passerelle.invalid")

// probes is how often the way through is tried in a row: more than Synapse
// lets a service send that counts as an ordinary user.
const probes = 15

// Check asks the running homeserver whether it is set up for us, with the
// token it should know us by, and returns what is not. It asks because a
// registration with a misspelt key is loaded without a word. answered is false
// when the homeserver did not answer at all; the one finding says why.
func (c *Client) Check(ctx context.Context, o CheckOptions) (findings []Finding, answered bool) {
	features, err := c.Features(ctx)
	if err != nil {
		return []Finding{{"the homeserver does not answer (" + err.Error() + ")", "nobody gets a token",
			"homeserver.url: its client API, as this machine reaches it"}}, false
	}
	if !features["org.matrix.msc4140"] {
		findings = append(findings, Finding{"the homeserver delays no events (MSC4140)",
			"who crashes stays in the list of the call for hours", "homeserver.yaml: max_event_delay_duration: 24h"})
	}
	findings = append(findings, c.checkMembership(ctx)...)
	if o.Proxied {
		findings = append(findings, c.checkProxy(ctx, o)...)
	}
	return findings, true
}

func (c *Client) checkMembership(ctx context.Context) []Finding {
	const costs = "Passerelle cannot ask who is in a room, so nobody gets a token"
	_, err := c.isJoined(ctx, probeRoom, "mxid", "@passerelle-check:passerelle.invalid")
	switch {
	case err == nil, refused(err, http.StatusBadRequest, ""):
		return nil
	case refused(err, http.StatusUnauthorized, ""):
		return []Finding{{"the homeserver does not know our as_token", costs,
			"homeserver.yaml: app_service_config_files: [the file of `passerelle registration focus`], and restart it"}}
	case refused(err, http.StatusForbidden, ""):
		return []Finding{{"our registration lacks the scope", costs,
			`registration: io.element.msc4502.scopes: ["` + scope + `"]`}}
	case refused(err, http.StatusNotFound, ""):
		return []Finding{{"the homeserver does not offer the question (MSC4502)", costs,
			"homeserver.yaml: experimental_features: {msc4502_enabled: true}; it is in Synapse 1.161 and later"}}
	}
	return []Finding{{"the homeserver does not say who is in a room (" + err.Error() + ")", costs, "look into its log"}}
}

func (c *Client) checkProxy(ctx context.Context, o CheckOptions) []Finding {
	const costs = "clients that ask through their homeserver get no token"
	for range probes {
		var answer json.RawMessage
		err := c.ask(ctx, question{name: "probe", method: http.MethodGet, path: o.ProbePath}, &answer)
		switch {
		case err == nil && string(answer) == o.ProbeAnswer:
			continue
		case err == nil:
			return []Finding{{"the homeserver hands requests to somebody else", costs,
				"registration: io.element.msc4512.proxy_url: the address of homeserver.listen"}}
		case refused(err, http.StatusNotFound, ""):
			return []Finding{{"the homeserver hands over no requests (MSC4512)", costs,
				"registration: io.element.msc4512.proxy_prefix: " + prefix + " and proxy_url; homeserver.yaml: experimental_features: {msc4512_enabled: true}"}}
		case refused(err, http.StatusForbidden, ""):
			return []Finding{{"the homeserver hands requests over with another hs_token", costs,
				"homeserver.hs_token: the hs_token of the registration that the homeserver has loaded"}}
		case refused(err, http.StatusTooManyRequests, ""):
			return []Finding{{"the homeserver limits us like any user", "restarts of delayed events and questions are refused in a busy call",
				"registration: rate_limited: false"}}
		case refused(err, http.StatusUnauthorized, ""):
			return nil // said already
		}
		return []Finding{{"the homeserver does not reach Passerelle (" + err.Error() + ")", costs,
			"registration: io.element.msc4512.proxy_url: the address of homeserver.listen; is Passerelle running?"}}
	}
	return nil
}

// Advice is what nobody can ask a homeserver from outside.
func Advice() string {
	return "Not asked, for it cannot be seen from outside: each token request through the homeserver counts in rc_message, " +
		"and at its default the twelfth in a row is refused (homeserver.yaml: rc_message: {per_second: 10, burst_count: 100})."
}

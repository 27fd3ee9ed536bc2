package homeserver

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"maunium.net/go/mautrix/id"
)

// Finding is one thing about the homeserver that is not as it should be.
type Finding struct {
	// Wrong says what, Costs what does not work because of it, and Mend is the
	// line that mends it.
	Wrong, Costs, Mend string
	// Unseen: it may be well. Nobody can tell from outside.
	Unseen bool
}

// String is one line for an operator.
func (f Finding) String() string { return f.Wrong + ": " + f.Costs + " (" + f.Mend + ")" }

// CheckOptions say what the homeserver should be able to do.
type CheckOptions struct {
	// ServerName is what we take it to be called; empty is not compared.
	ServerName string
	// Unverified: tokens are given without asking who is in a room.
	Unverified bool
	// Proxied: it hands requests over to us.
	Proxied bool
	// ProbePath and ProbeAnswer are a request that, through the homeserver,
	// reaches us, and our answer to it.
	ProbePath, ProbeAnswer string
	// Transports is what should be announced, nothing without an address;
	// AnnouncedByUs where we do it ourselves.
	Transports    Transports
	AnnouncedByUs bool
}

const (
	// probeRoom is a room that there is not. Its ID is well formed in all
	// versions.
	probeRoom = id.RoomID("!passerelle-check:passerelle.invalid")
	// probes is how often the way through is tried in a row: more than Synapse
	// lets a service send that counts as an ordinary user.
	probes = 15
	// synapse begins what a Synapse needs; other homeservers may not have it.
	synapse = "homeserver.yaml of Synapse: "
)

// Check asks the running homeserver whether it is set up for us, with the
// token it should know us by, and returns what is not. It asks because a
// registration with a misspelt key is loaded without a word, and because
// nothing announces MSC4512 and MSC4195. answered is false when the homeserver
// did not answer at all; the one finding says why.
func (c *Client) Check(ctx context.Context, o CheckOptions) (findings []Finding, answered bool) {
	features, err := c.Features(ctx)
	if err != nil {
		return []Finding{{Wrong: "the homeserver does not answer (" + err.Error() + ")", Costs: "nobody gets a token",
			Mend: "homeserver.url: its client API, as this machine reaches it"}}, false
	}
	findings = checkFeatures(features)
	if o.Transports.ServiceURL != "" {
		findings = append(findings, c.checkTransports(ctx, o)...)
	}
	findings = append(findings, c.checkToken(ctx, o)...)
	findings = append(findings, c.checkMembership(ctx, o)...)
	if o.Proxied {
		findings = append(findings, c.checkProxy(ctx, o)...)
		findings = append(findings, userLimit)
	}
	return findings, true
}

// userLimit cannot be tried: the limits of users are not those of a service.
var userLimit = Finding{Unseen: true,
	Wrong: "each token request through the homeserver counts in its rc_message, which cannot be seen from outside",
	Costs: "at its default the twelfth in a row of one user is refused",
	Mend:  synapse + "rc_message: {per_second: 10, burst_count: 100}"}

// checkFeatures is about what the homeserver says of itself (GET /versions).
func checkFeatures(features map[string]bool) (findings []Finding) {
	if !features["org.matrix.msc4140"] {
		findings = append(findings, Finding{Wrong: "the homeserver delays no events (MSC4140)",
			Costs: "who crashes stays in the list of the call for hours, and no leaves are taken over",
			Mend:  synapse + "max_event_delay_duration: 24h"})
	}
	if !features["org.matrix.msc4354"] {
		findings = append(findings, Finding{Wrong: "the homeserver has no sticky events (MSC4354)",
			Costs: "clients in the newest mode, matrix_2_0, cannot say that they are in a call",
			Mend:  synapse + "experimental_features: {msc4354_enabled: true}"})
	}
	return findings
}

// checkTransports is about where clients learn which media server is theirs
// (MSC4143). Without a token that the homeserver knows, only whether it would
// say so can be seen.
func (c *Client) checkTransports(ctx context.Context, o CheckOptions) []Finding {
	const costs = "newer clients find no media server, and show no call button or an error"
	var answer struct {
		Transports []transport `json:"rtc_transports"`
	}
	err := c.ask(ctx, question{
		name: "transports", method: http.MethodGet, path: clientAPI + "unstable/org.matrix.msc4143/rtc/transports",
	}, &answer)
	switch {
	case refused(err, http.StatusNotFound, "") && !o.AnnouncedByUs:
		return []Finding{{Wrong: "the homeserver announces no media servers (MSC4143)", Costs: costs,
			Mend: synapse + "experimental_features: {msc4143_enabled: true}, and what `passerelle transports` prints; else announce.transports: true"}}
	case err != nil:
		return nil // announced by us, or not for us to see
	}
	ours, err := o.Transports.newer()
	if err != nil {
		return nil
	}
	for _, announced := range answer.Transports {
		if announced == ours {
			return nil
		}
	}
	if len(answer.Transports) == 0 {
		if o.AnnouncedByUs {
			return nil
		}
		return []Finding{{Wrong: "the homeserver announces no media server", Costs: costs,
			Mend: synapse + "matrix_rtc.transports, as `passerelle transports` prints it"}}
	}
	return []Finding{{Wrong: "the homeserver announces something else than `passerelle transports` prints",
		Costs: "clients go elsewhere, or do not find each other, since addresses are compared letter by letter",
		Mend:  synapse + "matrix_rtc.transports, as it prints them"}}
}

// whoeverKnows is what it costs to ask nobody who is in a room.
const whoeverKnows = "focus.membership is unverified, so whoever knows a room's ID gets into its calls"

// checkToken is about the token that we show.
func (c *Client) checkToken(ctx context.Context, o CheckOptions) []Finding {
	costs := "Passerelle cannot ask who is in a room, so nobody gets a token"
	if o.Unverified {
		costs = whoeverKnows
	}
	if c.token == "" {
		return []Finding{{Wrong: "we have no as_token", Costs: costs + "; and delayed leaves are managed with a stranger's limits, one a second",
			Mend: "homeserver.as_token_file: what `passerelle registration focus` makes"}}
	}
	name, err := c.ServerName(ctx)
	switch {
	case refused(err, http.StatusUnauthorized, ""):
		return []Finding{{Wrong: "the homeserver does not know our as_token", Costs: costs,
			Mend: synapse + "app_service_config_files: [the file of `passerelle registration focus`], and restart it"}}
	case err == nil && o.ServerName != "" && name != o.ServerName:
		return []Finding{{Wrong: "the homeserver is called " + strconv.Quote(name) + ", and not " + strconv.Quote(o.ServerName),
			Costs: "its users are refused who ask through it, other servers' signed requests to it are, and it cannot be asked whether it is in a room still, so the calls of one that it has left go on",
			Mend:  "homeserver.server_name: " + strconv.Quote(name)}}
	}
	return nil
}

func (c *Client) checkMembership(ctx context.Context, o CheckOptions) []Finding {
	costs := "only of rooms that a user of our registration is in can be asked who is there, and in all others nobody gets a token"
	otherwise := "; where there is none such, that user in each room, or focus.membership: unverified"
	if o.Unverified {
		costs, otherwise = whoeverKnows, ""
	}
	_, err := c.isJoined(ctx, probeRoom, "mxid", "@passerelle-check:passerelle.invalid")
	switch {
	case refused(err, http.StatusUnauthorized, ""):
		return nil // said already
	case (err == nil || refused(err, http.StatusBadRequest, "")) && o.Unverified:
		return []Finding{{Wrong: "nobody is asked who is in a room, although the homeserver would say so", Costs: whoeverKnows,
			Mend: "focus.membership: required"}}
	case err == nil, refused(err, http.StatusBadRequest, ""):
		return nil
	case refused(err, http.StatusForbidden, ""):
		return []Finding{{Wrong: "our registration lacks the scope", Costs: costs,
			Mend: `registration: io.element.msc4502.scopes: ["` + scope + `"]`}}
	case refused(err, http.StatusNotFound, ""):
		return []Finding{{Wrong: "the homeserver does not offer the question who is in a room (MSC4502)", Costs: costs,
			Mend: synapse + "experimental_features: {msc4502_enabled: true}, in 1.161 and later" + otherwise}}
	}
	return []Finding{{Wrong: "the homeserver does not say who is in a room (" + err.Error() + ")", Costs: costs, Mend: "look into its log"}}
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
			return []Finding{{Wrong: "the homeserver hands requests to somebody else", Costs: costs,
				Mend: "registration: io.element.msc4512.proxy_url: the address of homeserver.listen"}}
		case refused(err, http.StatusNotFound, ""):
			return []Finding{{Wrong: "the homeserver hands over no requests (MSC4512)", Costs: costs,
				Mend: "registration: io.element.msc4512.proxy_prefix: " + prefix + " and proxy_url; " +
					synapse + "experimental_features: {msc4512_enabled: true}; where there is none such, homeserver.listen: \"\""}}
		case refused(err, http.StatusForbidden, ""):
			return []Finding{{Wrong: "the homeserver hands requests over with another hs_token", Costs: costs,
				Mend: "homeserver.hs_token: the hs_token of the registration that the homeserver has loaded"}}
		case refused(err, http.StatusUnauthorized, ""):
			return nil // said already
		case refused(err, http.StatusTooManyRequests, ""):
			return []Finding{{Wrong: "the homeserver limits us like any user", Costs: "restarts of delayed events and questions are refused in a busy call",
				Mend: "registration: rate_limited: false"}}
		}
		return []Finding{{Wrong: "the homeserver does not reach Passerelle (" + err.Error() + ")", Costs: costs,
			Mend: "registration: io.element.msc4512.proxy_url: the address of homeserver.listen; is Passerelle running?"}}
	}
	return nil
}

package config_test

import (
	"testing"
	"time"

	"passerelle/config"
)

// What reads as a limit must be one: a rule whose limits limit nobody is a
// mistake.
func TestValidateLimitsOfRules(t *testing.T) {
	with := func(r config.FederationRule) change {
		r.Server = "a"
		return func(c *config.Config) { c.Federation.Rules = []config.FederationRule{r} }
	}
	sources := func(access string, publish bool, names ...string) change {
		return with(config.FederationRule{Access: access, Publish: publish, Sources: append([]string{}, names...)})
	}
	bounds := func(access string, most int, longest time.Duration) change {
		return with(config.FederationRule{Access: access, MaxParticipants: most, LongestCall: longest})
	}
	check(t, []rule{
		{"sources of a rule", []change{
			sources("create", false, "microphone"), sources("join", true, "screen_share", "camera"),
			sources("create", true, "microphone", "camera", "screen_share"),
		}, []wrong{
			{"federation.rules[0].sources: names nothing (remove it where all may be sent", sources("create", false)},
			{`federation.rules[0].sources: "screen" is not known here (write microphone, camera or screen_share)`, sources("create", false, "camera", "screen")},
			{"federation.rules[0].sources: names camera twice", sources("create", false, "camera", "camera")},
			{"federation.rules[0].sources: limits the publishing of those who publish nothing", sources("join", false, "camera")},
			{"federation.rules[0].sources: limits the publishing of those who publish nothing", sources("deny", false, "camera")},
		}},
		{"bounds of a rule", []change{bounds("create", 1, time.Minute), bounds("create", 10000, 0), bounds("create", 0, 720*time.Hour)}, []wrong{
			{"federation.rules[0].max_participants: is out of range", bounds("create", -1, 0)},
			{"federation.rules[0].longest_call: is out of range (write a duration from 1m to 720h)", bounds("create", 0, time.Second)},
			{"federation.rules[0].max_participants: bounds the calls of those who start none", bounds("join", 5, 0)},
			{"federation.rules[0].longest_call: bounds the calls of those who start none", bounds("deny", 0, time.Hour)},
		}},
	})
}

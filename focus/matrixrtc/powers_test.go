package matrixrtc

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"
)

const (
	creator id.UserID = "@creator:example.org"
	member  id.UserID = "@member:example.org"
	calls             = "org.matrix.msc3401.call.member"
)

func parse(t *testing.T, version, levels string) *Powers {
	t.Helper()
	p, err := parsePowers(version, levels)
	require.NoError(t, err)
	return p
}

func parsePowers(version, levels string) (*Powers, error) {
	create := fmt.Sprintf(`{"room_version": %q, "creator": %q}`, version, creator)
	sender := creator
	if number, _ := strconv.Atoi(version); number < creatorIsSender {
		sender = "@somebody.else:example.org"
	}
	return ParsePowers(sender, json.RawMessage(create), json.RawMessage(levels))
}

// The levels that Synapse makes for a public room, in which the creator of one
// of version 12 is not named.
const fresh = `{"users": {%s}, "users_default": 0, "events_default": 0, "state_default": 50, "events": {"m.room.power_levels": 100}}`

func TestCreatorsRankAboveFromVersion12On(t *testing.T) {
	named := fmt.Sprintf(fresh, fmt.Sprintf(`%q: 100`, creator))
	for _, version := range []string{"1", "5", "6", "9", "10", "11"} {
		p := parse(t, version, named)
		require.EqualValues(t, 100, p.Of(creator), version)
		require.True(t, p.MaySend(creator, calls, true))
		p = parse(t, version, fmt.Sprintf(fresh, ""))
		require.Zero(t, p.Of(creator), "%s: who is not named has no power", version)
		require.False(t, p.MaySend(creator, calls, true), version)
	}
	for _, version := range []string{"12", "13"} {
		p := parse(t, version, fmt.Sprintf(fresh, ""))
		require.EqualValues(t, CreatorLevel, p.Of(creator), version)
		require.True(t, p.MaySend(creator, "m.room.power_levels", true))
		require.False(t, p.MaySend(member, calls, true))
	}
	p, err := ParsePowers(creator, json.RawMessage(`{"room_version": "12", "additional_creators": ["@second:example.org"]}`), nil)
	require.NoError(t, err)
	require.EqualValues(t, CreatorLevel, p.Of("@second:example.org"))
	require.Zero(t, p.Of(member))
	p, err = ParsePowers(creator, json.RawMessage(`{"room_version": "11", "additional_creators": ["@second:example.org"]}`), json.RawMessage(`{}`))
	require.NoError(t, err)
	require.Zero(t, p.Of("@second:example.org"), "no such field before")
}

func TestWhoMaySendWhat(t *testing.T) {
	p := parse(t, "10", fmt.Sprintf(`{"users": {%q: 25}, "users_default": 5, "events_default": 10, "state_default": 60,
		"events": {%q: 25, "m.reaction": -1}}`, member, calls))
	require.True(t, p.MaySend(member, calls, true), "just enough")
	require.False(t, p.MaySend("@other:example.org", calls, true))
	require.False(t, p.MaySend(member, "m.rtc.slot", true), "state_default")
	require.True(t, p.MaySend(member, "m.rtc.member", false), "events_default")
	require.False(t, p.MaySend("@other:example.org", "m.rtc.member", false))
	require.True(t, p.MaySend("@other:example.org", "m.reaction", false))

	// Without the event anybody may send anything, and with an empty one state
	// takes 50.
	p = parse(t, "11", "")
	require.True(t, p.MaySend(member, calls, true))
	require.EqualValues(t, 100, p.Of(creator))
	p = parse(t, "11", "{}")
	require.False(t, p.MaySend(member, calls, true))
	require.True(t, p.MaySend(member, "m.rtc.member", false))
	p, err := ParsePowers("", json.RawMessage(`{"creator": "@creator:example.org"}`), nil)
	require.NoError(t, err, "version 1 names none")
	require.EqualValues(t, 100, p.Of(creator))
}

// TestLevelsAsTheirVersionTakesThem: texts were numbers up to version 9, and
// fractions up to version 5.
func TestLevelsAsTheirVersionTakesThem(t *testing.T) {
	for _, c := range []struct {
		level string
		want  int64
		last  int // the last version that takes it; 0 is all
	}{
		{"50", 50, 0},
		{"-1", -1, 0},
		{"9007199254740991", maxLevel, 0},
		{`"50"`, 50, 9},
		{`" +50 "`, 50, 9},
		{"50.9", 50, 5},
		{"5e1", 50, 5},
		{"9007199254740992", 0, -1},
		{`"fifty"`, 0, -1},
		{`""`, 0, -1},
		{"null", 0, -1},
		{"true", 0, -1},
		{"[50]", 0, -1},
	} {
		for version := 1; version <= 12; version++ {
			for _, levels := range []string{
				fmt.Sprintf(`{"users": {%q: %s}}`, member, c.level),
				fmt.Sprintf(`{"users_default": %s}`, c.level),
			} {
				p, err := parsePowers(fmt.Sprint(version), levels)
				if c.last != 0 && version > c.last {
					require.Error(t, err, "%s in version %d", levels, version)
					continue
				}
				require.NoError(t, err, "%s in version %d", levels, version)
				require.Equal(t, c.want, p.Of(member), "%s in version %d", levels, version)
			}
		}
	}
}

func TestPowersThatAreNone(t *testing.T) {
	for name, c := range map[string]struct{ create, levels string }{
		"no version that anybody knows": {`{"room_version": "org.example.new"}`, `{}`},
		"version zero":                  {`{"room_version": "0"}`, `{}`},
		"a number for a version":        {`{"room_version": 10}`, `{}`},
		"no create event":               {``, `{}`},
		"a list":                        {`{"room_version": "10"}`, `[]`},
		"a list of users":               {`{"room_version": "10"}`, `{"users": []}`},
		"larger than an event":          {`{"room_version": "10"}`, `{"x": "` + strings.Repeat("x", maxContent) + `"}`},
	} {
		_, err := ParsePowers(creator, json.RawMessage(c.create), json.RawMessage(c.levels))
		require.Error(t, err, name)
	}
}

// FuzzPowers reads any content. What is taken has levels within bounds, of
// creators alone above them, and no texts from version 10 on.
func FuzzPowers(f *testing.F) {
	f.Add(12, fmt.Sprintf(fresh, ""))
	f.Add(9, `{"users": {"@member:example.org": "50"}}`)
	f.Add(5, `{"users": {"@member:example.org": 1e300}, "events": {"x": -0.5}}`)
	f.Add(10, `{"users_default": 9007199254740993, "state_default": null}`)
	f.Fuzz(func(t *testing.T, version int, levels string) {
		p, err := parsePowers(fmt.Sprint(version), levels)
		if err != nil {
			return
		}
		for _, user := range []id.UserID{creator, member} {
			level := p.Of(user)
			if above := version >= 12 && user == creator; (level == CreatorLevel) != above || !above && (level > maxLevel || level < -maxLevel) {
				t.Fatalf("%s has %d in version %d", user, level, version)
			}
		}
		if version >= 12 && !p.MaySend(creator, "x", true) {
			t.Fatal("a creator may do everything")
		}
		var plain struct {
			Users map[string]any `json:"users"`
		}
		_ = json.Unmarshal([]byte(levels), &plain)
		for user, level := range plain.Users {
			if _, text := level.(string); text && version >= 10 {
				t.Fatalf("%s has a text in version %d", user, version)
			}
		}
	})
}

func TestSources(t *testing.T) {
	for names, want := range map[string]Sources{
		"": 0, "microphone": Microphone, "microphone,camera": Microphone | Camera, "microphone,camera,screen_share": AllSources,
	} {
		require.Equal(t, names, want.String())
		if names == "" {
			continue
		}
		got, err := ParseSources(strings.Split(names, ","))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := ParseSources([]string{"camera", "Microphone"})
	require.Error(t, err)
}

func TestRightsOfBoth(t *testing.T) {
	all := Rights{Join: true, Start: true, Publish: AllSources}
	some := Rights{Join: true, Publish: Microphone | Camera}
	require.Equal(t, some, all.And(some))
	require.Equal(t, some, some.And(all))
	require.Equal(t, Rights{Join: true, Publish: Camera}, some.And(Rights{Join: true, Start: true, Publish: Camera | ScreenShare}))
	require.Zero(t, all.And(Rights{}))
	require.Zero(t, Access{Create: true, Publish: AllSources}.Rights(), "who may not join may do nothing")
}

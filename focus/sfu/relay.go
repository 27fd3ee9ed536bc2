package sfu

import (
	"bufio"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/rs/zerolog"
)

// maxLogLine bounds one line of the child's that is logged; the rest of it is
// thrown away.
const maxLogLine = 16 << 10

var (
	// token matches JSON web tokens, some of which LiveKit writes into its log.
	token = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`)
	// userID matches Matrix user IDs: with older clients they are the
	// identities of LiveKit's participants.
	userID = regexp.MustCompile(`@[^\s"':@]+:[A-Za-z0-9.\-]+(:[0-9]+)?`)
)

// logLine is what we keep of a line of LiveKit's. Its other fields name
// persons, their addresses and devices: those are for debugging alone.
type logLine struct {
	Level   string `json:"level"`
	Logger  string `json:"logger"`
	Message string `json:"msg"`
	Error   string `json:"error"`
}

// relay writes the child's lines into our log until they end.
func relay(lines *bufio.Reader, log zerolog.Logger) {
	for {
		line, long, err := lines.ReadLine()
		if err != nil {
			return
		}
		text := strings.ToValidUTF8(string(line), "?")
		for long && err == nil {
			_, long, err = lines.ReadLine()
		}
		report(token.ReplaceAllString(text, "<token>"), log)
	}
}

// report logs one line: LiveKit's own JSON, or what the Go runtime says of a
// panic.
func report(text string, log zerolog.Logger) {
	var l logLine
	if json.Unmarshal([]byte(text), &l) != nil || l.Message == "" {
		log.Warn().Str("line", userID.ReplaceAllString(text, "<user>")).Msg("The SFU says")
		return
	}
	if whole := log.Debug(); whole.Enabled() {
		whole.RawJSON("livekit", []byte(text)).Msg("LiveKit's log")
	}
	switch l.Level {
	case "debug", "info", "":
		return // said above
	}
	// What LiveKit calls an error is one of a participant's, most often.
	event := log.Warn().Str("logger", l.Logger).Str("said", userID.ReplaceAllString(l.Message, "<user>"))
	if l.Error != "" {
		event = event.Str("error", userID.ReplaceAllString(l.Error, "<user>"))
	}
	event.Msg("LiveKit reports a problem")
}

package matrixrtc

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"maunium.net/go/mautrix/id"
)

// FuzzNames derives the SFU's names from any identifiers and holds them against
// a second encoder, written from the rules of canonical JSON (Matrix
// specification, appendices). Names are short, of a closed alphabet, and those
// of other identifiers are others.
func FuzzNames(f *testing.F) {
	f.Add("!roomid:example.com", "m.call#ROOM", "memberABC")
	f.Add("@alice:example.com", "DEVICE<1>&", "m\u2028\u2029é😀")
	f.Add(`"`, `\`, "\x00\n")
	f.Add("a", `","`, "b")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		// encoding/json lets no other UTF-8 through, and requests that hold
		// control characters are refused. The two encoders differ on those:
		// mautrix' writes their escapes in capitals.
		if all := a + b + c; !utf8.ValidString(a) || !utf8.ValidString(b) || !utf8.ValidString(c) || strings.ContainsFunc(all, unicode.IsControl) {
			return
		}
		room := string(SlotKey{RoomID: id.RoomID(a), SlotID: b}.SFURoom())
		identity := string(Member{UserID: id.UserID(a), DeviceID: id.DeviceID(b), ID: c}.HashedIdentity())
		for got, want := range map[string]string{room: canonical(a, b), identity: canonical(a, b, c)} {
			sum := sha256.Sum256([]byte(want))
			if got != base64.RawStdEncoding.EncodeToString(sum[:]) {
				t.Fatalf("%q is not the hash of %s", got, want)
			}
		}
		if a != b && room == string(SlotKey{RoomID: id.RoomID(b), SlotID: a}.SFURoom()) {
			t.Fatalf("%q and %q are the same either way round", a, b)
		}
		if moved := string(Member{UserID: id.UserID(a), DeviceID: id.DeviceID(b + c)}.HashedIdentity()); c != "" && identity == moved {
			t.Fatalf("%q, %q, %q: where one ends does not count", a, b, c)
		}
	})
}

// canonical is the canonical JSON of an array of strings without control
// characters.
func canonical(parts ...string) string {
	var encoded []string
	for _, part := range parts {
		var s strings.Builder
		for _, r := range part {
			if r == '"' || r == '\\' {
				s.WriteByte('\\')
			}
			s.WriteRune(r)
		}
		encoded = append(encoded, `"`+s.String()+`"`)
	}
	return "[" + strings.Join(encoded, ",") + "]"
}

package focus

import (
	"strings"
	"testing"
	"unicode"
)

// Whatever a stranger sends, what passes the decoders can be stored and
// hashed, and nothing else passes.
func FuzzRequests(f *testing.F) {
	f.Add(`{"room":"!r","openid_token":{"access_token":"t","matrix_server_name":"hs"},"device_id":"D"}`)
	f.Add(`{"room_id":"!r","slot_id":"m.call#","openid_token":{"access_token":"t","matrix_server_name":"hs"},
		"member":{"id":"m","claimed_user_id":"@u:hs","claimed_device_id":"D"},"delay_id":"x","delay_timeout":1}`)
	f.Add(`{"room":"!r","openid_token":{"access_token":"t","matrix_server_name":"hs"},"delay_id":"..","delay_timeout":1e400}`)
	f.Add(`{"delay_timeout":-9223372036854775809,"delay_id":"\u0000"}`)
	f.Add(`{"room":"\u0000"}`)
	f.Add(strings.Repeat(`[`, 10000))
	f.Fuzz(func(t *testing.T, body string) {
		if r, err := decodeLegacy(strings.NewReader(body)); err == nil {
			sound(t, r)
			if r.claimed != "" || r.memberID != "" || strings.Contains(string(r.deviceID), ":") {
				t.Fatalf("not a legacy request: %+v", r)
			}
		}
		if r, err := decodeStandalone(strings.NewReader(body)); err == nil {
			sound(t, r)
			if r.claimed == "" || r.memberID == "" || r.deviceID == "" || r.slot.SlotID == "" {
				t.Fatalf("something required is missing: %+v", r)
			}
		}
		if r, err := decodeDelegate(strings.NewReader(body)); err == nil {
			sound(t, r)
			if r.claimed == "" || !r.delay.asked() {
				t.Fatalf("something required is missing: %+v", r)
			}
		}
	})
}

func sound(t *testing.T, r *tokenRequest) {
	t.Helper()
	if r.slot.RoomID == "" || r.openID.AccessToken == "" || r.openID.MatrixServerName == "" {
		t.Fatalf("something required is missing: %+v", r)
	}
	if r.delay.asked() != (r.delay.DelayTimeout > 0) || r.delay.DelayTimeout.duration() < 0 {
		t.Fatalf("half a leave, or a delay that cannot be counted: %+v", r)
	}
	for _, s := range []string{r.delay.DelayID.Reveal(), string(r.slot.RoomID), r.slot.SlotID, string(r.deviceID), r.memberID, string(r.claimed), r.openID.MatrixServerName} {
		if len(s) > maxField || strings.ContainsFunc(s, unicode.IsControl) {
			t.Fatalf("cannot be stored: %q", s)
		}
	}
}

package focus_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"

	"passerelle/migrations/migrationstest"
)

// Who sends a wrong type is told of the key as it was sent.
func TestTheKeyOfAWrongType(t *testing.T) {
	migrationstest.Each(t, func(t *testing.T, db *dbutil.Database) {
		w := newWorld(t, db)
		for body, key := range map[string]string{
			`{"delay_id":7}`: "delay_id", `{"delay_timeout":"5"}`: "delay_timeout", `[]`: "the request",
			`{"openid_token":{"access_token":7}}`: "openid_token.access_token",
		} {
			for _, route := range []string{"/sfu/get", "/get_token", "/delegate_delayed_leave"} {
				_, answer := w.ask(t, route, body)
				require.Contains(t, answer, `"error":"`+key+` has the wrong type`, route)
			}
		}
		for _, key := range []string{"url", "room_id", "member.id", "delay_id", "delay_timeout"} {
			body := `{"` + strings.ReplaceAll(key, ".", `":{"`) + `":[]` + strings.Repeat("}", 1+strings.Count(key, "."))
			_, answer := w.hand(t, proxiedLeave, "@ana:own.example", body)
			require.Contains(t, answer, `"error":"`+key+` has the wrong type`)
		}
	})
}

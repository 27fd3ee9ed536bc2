package matrixrtc

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The vectors are those of MSC4195 and its implementations, and some that
// Node's JSON.stringify and SHA-256 gave for characters on which JSON
// encoders disagree.
func TestDerivations(t *testing.T) {
	t.Run("SFU room", func(t *testing.T) {
		for _, v := range []struct {
			key  SlotKey
			want SFURoom
		}{
			{SlotKey{RoomID: "!roomid:example.com", SlotID: "slot1234"}, "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"},
			{SlotKey{RoomID: "!roomid:example.com", SlotID: RoomCallSlot}, "F4oOprKFBq6JHqy2qYpq6UQQmR7hCvxkQQoUrd0+SbI"},
		} {
			require.Equal(t, v.want, v.key.SFURoom(), "%+v", v.key)
		}
	})
	t.Run("hashed identity", func(t *testing.T) {
		for _, v := range []struct {
			member Member
			want   Identity
		}{
			{Member{UserID: "@alice:example.com", DeviceID: "DEVICE123", ID: "memberABC"}, "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU"},
			{Member{UserID: "@a:ex.org", DeviceID: "DEV<1>", ID: "m&m"}, "otTMrzpY+yGdSHDmCSEmsFnP2zv3AHynwgW2yp3ddd8"},
			{Member{UserID: "@a:ex.org", DeviceID: "D\u2028\u2029é", ID: "m"}, "MTqJ9KG7PJJMCH+CCGtosmREGrV6nWbvvrH2FQfNlTA"},
			{Member{UserID: "@a:ex.org", DeviceID: "D\"\\\b\t\n\f\r\u0001\u007f", ID: "😀"}, "JsTl/l5ThrB3ug1URCdOX2hdFsV6vrnDTqPuLTTQDuU"},
		} {
			require.Equal(t, v.want, v.member.HashedIdentity(), "%+q", v.member)
		}
	})
	t.Run("proxied identity", func(t *testing.T) {
		require.Equal(t, Identity("M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs"),
			Member{UserID: "@alice:example.com", ID: "memberABC"}.ProxiedIdentity())
	})
	t.Run("legacy identity", func(t *testing.T) {
		require.Equal(t, Identity("@a:127.0.0.1:8448:DEVICE"),
			Member{UserID: "@a:127.0.0.1:8448", DeviceID: "DEVICE"}.LegacyIdentity())
	})
}

func TestSlotIDsAreOpaque(t *testing.T) {
	upper := SlotKey{RoomID: "!r", SlotID: "m.call#ROOM"}.SFURoom()
	for _, other := range []string{"m.call#room", "m.call#", "m.call#ROOM "} {
		require.NotEqual(t, upper, SlotKey{RoomID: "!r", SlotID: other}.SFURoom(), other)
	}
}

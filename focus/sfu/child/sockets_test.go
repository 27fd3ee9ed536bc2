package child_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"passerelle/focus/sfu"
)

// socket is a line of /proc/net/tcp or udp.
type socket struct {
	network       string
	local, remote netip.AddrPort
	listens       bool
}

// requireFrugal: the child listens on loopback alone, except for media, and
// is connected to nobody but this machine.
func requireFrugal(t *testing.T, pid int, s *sfu.Supervisor) {
	t.Helper()
	sockets := socketsOf(t, pid)
	require.NotEmpty(t, sockets)
	api := netip.MustParseAddrPort(s.APIURL().Host)
	listening := 0
	for _, s := range sockets {
		require.True(t, s.local.Addr().IsLoopback(), "%+v", s)
		require.True(t, s.remote.Addr().IsLoopback() || s.remote.Addr().IsUnspecified(), "%+v", s)
		if s.network == "tcp" && s.listens {
			require.Equal(t, api, s.local)
			listening++
		}
	}
	require.Equal(t, 1, listening)
}

// socketsOf reads the Internet sockets of a process.
func socketsOf(t *testing.T, pid int) (found []socket) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	require.NoError(t, err)
	var inodes []string
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && strings.HasPrefix(target, "socket:[") {
			inodes = append(inodes, strings.Trim(target, "socket:[]"))
		}
	}
	for _, network := range []string{"tcp", "tcp6", "udp", "udp6"} {
		table, err := os.ReadFile(filepath.Join(proc, "net", network))
		require.NoError(t, err)
		for _, line := range strings.Split(strings.TrimSpace(string(table)), "\n")[1:] {
			fields := strings.Fields(line)
			if !slices.Contains(inodes, fields[9]) {
				continue
			}
			found = append(found, socket{
				network: strings.TrimSuffix(network, "6"), listens: fields[3] == "0A",
				local: kernelAddress(t, fields[1]), remote: kernelAddress(t, fields[2]),
			})
		}
	}
	return found
}

// kernelAddress parses 0100007F:1F90: 32-bit words in the machine's order.
func kernelAddress(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	address, port, ok := strings.Cut(text, ":")
	require.True(t, ok)
	raw, err := hex.DecodeString(address)
	require.NoError(t, err)
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	a, ok := netip.AddrFromSlice(raw)
	require.True(t, ok)
	var p uint16
	_, err = fmt.Sscanf(port, "%X", &p)
	require.NoError(t, err)
	return netip.AddrPortFrom(a.Unmap(), p)
}

package wire

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// ownAddress is the address of the program's network, one of those that are for
// documentation (RFC 5737).
var ownAddress = netip.MustParseAddr("192.0.2.1")

// raise raises the loopback interface, over which everything goes, and makes
// another, over which nothing does: WebRTC offers no loopback addresses of its
// own. The latter is a TUN device, since that takes neither a kernel module
// nor netlink.
func (w *Wire) raise() error {
	control, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(control)
	if err := up(control, "lo"); err != nil {
		return err
	}
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	w.own(func() { _ = unix.Close(tun) }) // and with it the interface
	request, err := unix.NewIfreq("wire0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, request); err != nil {
		return err
	}
	address := ownAddress.As4()
	if err := request.SetInet4Addr(address[:]); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(control, unix.SIOCSIFADDR, request); err != nil {
		return err
	}
	return up(control, "wire0")
}

func up(control int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(control, unix.SIOCSIFFLAGS, request)
}

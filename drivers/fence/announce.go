package fence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Announce tells the neighbours that an address is at this interface now: a gratuitous ARP request (RFC 5227), or an
// unsolicited neighbour advertisement that overrides what they know (RFC 4861). It needs CAP_NET_RAW.
func Announce(iface string, address netip.Addr) error {
	card, err := net.InterfaceByName(iface)
	if err != nil {
		return err
	}
	if len(card.HardwareAddr) != 6 {
		return nil // no Ethernet: nobody remembers where an address is
	}
	if address.Is4() {
		return send(unix.AF_PACKET, unix.SOCK_DGRAM, 0, gratuitousARP(card.HardwareAddr, address), &unix.SockaddrLinklayer{
			Protocol: binary.NativeEndian.Uint16([]byte{0x08, 0x06}), Ifindex: card.Index, Halen: 6,
			Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		}, func(int) error { return nil })
	}
	allNodes := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(card.Index)}
	return send(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6, advertisement(card.HardwareAddr, address), allNodes, func(socket int) error {
		return errors.Join(
			unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255), // or nobody believes it
			unix.SetsockoptInt(socket, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, card.Index),
			unix.Bind(socket, &unix.SockaddrInet6{Addr: address.As16()}),
		)
	})
}

func send(domain, kind, protocol int, message []byte, to unix.Sockaddr, prepare func(socket int) error) error {
	socket, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	err = prepare(socket)
	if err == nil {
		err = unix.Sendto(socket, message, unix.MSG_DONTWAIT, to)
	}
	return errors.Join(err, unix.Close(socket))
}

// gratuitousARP asks for the address in its own name: everybody who knows it takes note of where it is.
func gratuitousARP(hardware net.HardwareAddr, address netip.Addr) []byte {
	ip := address.As4()
	message := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, their lengths, request
	message = append(append(message, hardware...), ip[:]...)
	return append(append(message, 0, 0, 0, 0, 0, 0), ip[:]...)
}

// advertisement is a message of ICMPv6, whose checksum the kernel fills in.
func advertisement(hardware net.HardwareAddr, address netip.Addr) []byte {
	ip := address.As16()
	message := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, ip[:]...) // override
	return append(append(message, 2, 1), hardware...)                // the target's link-layer address
}

package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Latency is made in this process: the kernel hands it what is to be late, through a device, and gets it back after a while. Packets
// that are under way when a latency ends are still late.

const (
	device       = "late"
	deviceTable  = "7" // of routes, for what is late
	returnedRule = "1000"
	delayedRule  = "1001" // after those of Drop, which count down from the first one
	maxPacket    = 64 << 10
	headerBytes  = 20 // of IPv4, without options
)

// openDevice makes the device.
func openDevice() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	return os.NewFile(uintptr(fd), device), nil
}

// sendOn has what comes back from the device sent on to where it was to go, and everything that gets into it held.
func (n *Network) sendOn(ctx context.Context, file *os.File) error {
	err := n.All(ctx, [][]string{
		{"ip", "link", "set", device, "up"},
		{"ip", "route", "add", "default", "dev", device, "table", deviceTable},
		{"ip", "rule", "add", "priority", returnedRule, "iif", device, "lookup", "main"},
	})
	for _, name := range []string{"all", device} { // its packets come from where no route leads
		if err == nil {
			err = os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("0"), 0o600)
		}
	}
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("network: device %s: %w", device, err)
	}
	go n.hold(file)
	return nil
}

// hold gives packets back when they are late enough, for as long as the device is there.
func (n *Network) hold(file *os.File) {
	buffer := make([]byte, maxPacket)
	for {
		size, err := file.Read(buffer)
		if err != nil {
			return
		}
		if size < headerBytes || buffer[0]>>4 != 4 {
			continue
		}
		packet := slices.Clone(buffer[:size])
		way := [2]netip.Addr{netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20]))}
		n.mu.Lock()
		late := n.delays[way]
		n.mu.Unlock()
		time.AfterFunc(late, func() { _, _ = file.Write(packet) }) // one that is lost is one of the things that happen
	}
}

// Delay has everything that one server sends to another come so much later; 0 ends that.
func (n *Network) Delay(ctx context.Context, from, to string, late time.Duration) error {
	source, err := netip.ParseAddr(from)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	destination, err := netip.ParseAddr(to)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	way := [2]netip.Addr{source, destination}
	before := n.delays[way]
	n.delays[way] = late
	switch {
	case (before > 0) == (late > 0):
		return nil
	case late > 0:
		return n.do(ctx, "ip", "rule", "add", "priority", delayedRule, "from", from, "to", to, "lookup", deviceTable)
	default:
		return n.do(ctx, "ip", "rule", "del", "priority", delayedRule, "from", from, "to", to, "lookup", deviceTable)
	}
}

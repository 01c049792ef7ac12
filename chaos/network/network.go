// Package network makes a network of namespaces for servers on one machine: each server has a namespace and an address of its
// own, and all are connected to this process, which forwards and can be told to lose or to delay what one sends to another. This process
// itself always reaches everybody, as clients do which are on the same side of a partition as the server that they use.
//
// It changes the network and mount namespaces that it runs in, so those have to be of the caller's own making: the kernel takes
// everything away when the last process in them ends. It knows iproute2 and nft, and nothing of the servers.
package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cairn-storage/cairn/drivers/tool"
)

// Base is the address before the first server's; this process has Gate.
const (
	Base = "10.77.0.0"
	Gate = "10.77.0.254"
)

// Network is the wires between servers. It may be used concurrently.
type Network struct {
	NoLatency error // why none can be made here; nil if it can
	tools     tool.Runner

	mu     sync.Mutex
	losses map[[2]string]int               // percent, by source and destination
	delays map[[2]netip.Addr]time.Duration // likewise
}

// Prepare gives the namespaces that this process runs in what every network of servers needs: a place for the names of other
// namespaces, and loopback.
func Prepare(ctx context.Context) (*Network, error) {
	n := &Network{tools: tool.NewMachine(), losses: map[[2]string]int{}, delays: map[[2]netip.Addr]time.Duration{}}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil { // where ip keeps its names
		return nil, fmt.Errorf("network: private /run: %w", err)
	}
	return n, n.do(ctx, "ip", "link", "set", "lo", "up")
}

// New prepares a network and connects that many servers, called n1 and so on, each to this process alone.
func New(ctx context.Context, servers int) (*Network, error) {
	n, err := Prepare(ctx)
	if err != nil {
		return nil, err
	}
	for i := 1; i <= servers; i++ {
		if err := n.connect(ctx, i); err != nil {
			return nil, err
		}
	}
	var late *os.File
	if late, n.NoLatency = openDevice(); n.NoLatency == nil { // a container may have namespaces, and no such device
		if err := n.sendOn(ctx, late); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return nil, fmt.Errorf("network: cannot forward: %w", err)
	}
	return n, nil
}

// Address is that of the i-th server, from 1 on.
func Address(i int) string { return fmt.Sprintf("10.77.0.%d", i) }

func (n *Network) connect(ctx context.Context, i int) error {
	name, here := fmt.Sprintf("n%d", i), fmt.Sprintf("to-n%d", i)
	return n.All(ctx, [][]string{
		{"ip", "netns", "add", name},
		{"ip", "link", "add", here, "type", "veth", "peer", "name", "out", "netns", name},
		{"ip", "addr", "add", Gate + "/32", "dev", here},
		{"ip", "link", "set", here, "up"},
		{"ip", "route", "add", Address(i), "dev", here},
		{"ip", "-n", name, "link", "set", "lo", "up"},
		{"ip", "-n", name, "addr", "add", Address(i) + "/32", "dev", "out"},
		{"ip", "-n", name, "link", "set", "out", "up"},
		{"ip", "-n", name, "route", "add", Gate, "dev", "out"},
		{"ip", "-n", name, "route", "add", "default", "via", Gate},
	})
}

// Sources gives this process that many more addresses, from which clients may connect.
func (n *Network) Sources(ctx context.Context, count int) ([]string, error) {
	var all []string
	for i := 1; i <= count; i++ {
		address := netip.AddrFrom4([4]byte{10, 77, 1, byte(i)}).String()
		if err := n.do(ctx, "ip", "addr", "add", address+"/32", "dev", "lo"); err != nil {
			return nil, err
		}
		all = append(all, address)
	}
	return all, nil
}

// Wrap writes a program into dir that runs a server in the namespace of its name, and everything else here.
func Wrap(executable, dir string) (string, error) {
	ip, err := tool.Find("ip") // not the server's own, which may be one that fails
	if err != nil {
		return "", fmt.Errorf("network: %w", err)
	}
	program := filepath.Join(dir, "cairn-in-network")
	script := "#!/bin/sh\n[ \"$1\" = server ] || exec " + quote(executable) + " \"$@\"\n" +
		"exec " + quote(ip) + " netns exec \"$(basename \"$(dirname \"$3\")\")\" " + quote(executable) + " \"$@\"\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		return "", fmt.Errorf("network: %w", err)
	}
	return program, nil
}

func quote(path string) string { return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'" }

// Drop has everything lost that one server sends to another; Pass ends that.
func (n *Network) Drop(ctx context.Context, from, to string) error {
	return n.do(ctx, "ip", "rule", "add", "from", from, "to", to, "blackhole")
}

// Pass ends what Drop began.
func (n *Network) Pass(ctx context.Context, from, to string) error {
	return n.do(ctx, "ip", "rule", "del", "from", from, "to", to, "blackhole")
}

// Lose has so many of a hundred packets lost, at random, that one server sends to another; 0 ends that.
func (n *Network) Lose(ctx context.Context, from, to string, percent int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if percent == 0 {
		delete(n.losses, [2]string{from, to})
	} else {
		n.losses[[2]string{from, to}] = percent
	}
	var rules strings.Builder
	rules.WriteString("table inet chaos\ndelete table inet chaos\ntable inet chaos {\n chain forward {\n  type filter hook forward priority 0;\n")
	for pair, percent := range n.losses {
		fmt.Fprintf(&rules, "  ip saddr %s ip daddr %s numgen random mod 100 < %d drop\n", pair[0], pair[1], percent)
	}
	rules.WriteString(" }\n}\n")
	_, err := n.tools.Run(ctx, tool.Cmd{Name: "nft", Args: []string{"-f", "-"}, Stdin: []byte(rules.String())})
	return err
}

// All runs commands until one fails.
func (n *Network) All(ctx context.Context, commands [][]string) error {
	for _, command := range commands {
		if err := n.do(ctx, command...); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) do(ctx context.Context, command ...string) error {
	_, err := n.tools.Run(ctx, tool.Cmd{Name: command[0], Args: command[1:]})
	return err
}

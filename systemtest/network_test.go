package systemtest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cairn-storage/cairn/chaos/local"
)

// network is a network that the test has made: each server has a network namespace and an address of its own, and all of
// them are connected to this process, which forwards and can be told to drop what one sends to another. This process itself
// always reaches everybody, as clients do which are on the same side of a partition as the server that they use.
type network struct{ *cluster }

// networkBase is the address before the first server's; this process has networkGate.
const networkBase, networkGate = "10.77.0.0", "10.77.0.254"

// withNetwork runs body with a network for n servers, which are not started yet.
func withNetwork(t *testing.T, n int, body func(t *testing.T, net *network)) {
	t.Helper()
	withWires(t, func(t *testing.T) {
		for i := 1; i <= n; i++ {
			connect(t, i)
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
			t.Skipf("cannot forward: %v", err)
		}
	}, body)
}

// withWires runs body with a network that wire makes, from nothing: it has a network namespace for each server, by its name.
func withWires(t *testing.T, wire func(t *testing.T), body func(t *testing.T, net *network)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes networks: run as root")
	}
	withNamespaces(t, syscall.CLONE_NEWNS|syscall.CLONE_NEWNET, func(t *testing.T) {
		if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil { // where ip keeps its names
			t.Fatal(err)
		}
		if err := execute("ip", "link", "set", "lo", "up"); err != nil {
			t.Skipf("needs iproute2: %v", err)
		}
		wire(t)
		// A server runs in the namespace of its name; everything else runs here.
		program := filepath.Join(t.TempDir(), "cairn-in-network")
		script := "#!/bin/sh\n[ \"$1\" = server ] || exec " + binary + " \"$@\"\n" +
			"exec ip netns exec \"$(basename \"$(dirname \"$3\")\")\" " + binary + " \"$@\"\n"
		if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		body(t, &network{prepareWith(t, local.Config{Executable: program, Base: netip.MustParseAddr(networkBase)})})
	})
}

// address is that of the i-th server, from 1 on.
func address(i int) string { return fmt.Sprintf("10.77.0.%d", i) }

func connect(t *testing.T, i int) {
	t.Helper()
	name, here := fmt.Sprintf("n%d", i), fmt.Sprintf("to-n%d", i)
	in := []string{"ip", "-n", name}
	for _, command := range [][]string{
		{"ip", "netns", "add", name},
		{"ip", "link", "add", here, "type", "veth", "peer", "name", "out", "netns", name},
		{"ip", "addr", "add", networkGate + "/32", "dev", here},
		{"ip", "link", "set", here, "up"},
		{"ip", "route", "add", address(i), "dev", here},
		append(in, "link", "set", "lo", "up"),
		append(in, "addr", "add", address(i)+"/32", "dev", "out"),
		append(in, "link", "set", "out", "up"),
		append(in, "route", "add", networkGate, "dev", "out"),
		append(in, "route", "add", "default", "via", networkGate),
	} {
		if err := execute(command...); err != nil {
			t.Fatal(err)
		}
	}
}

// drop has everything lost that one server sends to another; pass ends that.
func (n *network) drop(from, to string) { n.rule("add", from, to) }
func (n *network) pass(from, to string) { n.rule("del", from, to) }

func (n *network) rule(verb, from, to string) {
	n.t.Helper()
	n.check(execute("ip", "rule", verb, "from", from, "to", to, "blackhole"))
}

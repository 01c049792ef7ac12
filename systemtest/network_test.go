package systemtest

import (
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/cairn-storage/cairn/chaos/local"
	wires "github.com/cairn-storage/cairn/chaos/network"
)

// network is a cluster whose servers have a network namespace and an address each.
type network struct {
	*cluster
	wires *wires.Network
}

// withNetwork runs body with a network for n servers, which are not started yet.
func withNetwork(t *testing.T, n int, body func(t *testing.T, net *network)) {
	t.Helper()
	withWires(t, func(t *testing.T) (*wires.Network, error) { return wires.New(t.Context(), n) }, body)
}

// withWires runs body with a network that wire makes, from nothing: it has a network namespace for each server, by its name.
func withWires(t *testing.T, wire func(t *testing.T) (*wires.Network, error), body func(t *testing.T, net *network)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes networks: run as root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: apt-get install iproute2")
	}
	withNamespaces(t, syscall.CLONE_NEWNS|syscall.CLONE_NEWNET, func(t *testing.T) {
		made, err := wire(t)
		if err != nil {
			t.Fatal(err)
		}
		program, err := wires.Wrap(binary, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		body(t, &network{prepareWith(t, local.Config{Executable: program, Base: netip.MustParseAddr(wires.Base)}), made})
	})
}

// drop has everything lost that one server sends to another; pass ends that.
func (n *network) drop(from, to string) { n.t.Helper(); n.check(n.wires.Drop(n.t.Context(), from, to)) }
func (n *network) pass(from, to string) { n.t.Helper(); n.check(n.wires.Pass(n.t.Context(), from, to)) }

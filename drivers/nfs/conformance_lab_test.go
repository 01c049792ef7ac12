//go:build lab

package nfs_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/nfs/nfstest"
)

func TestLabConformance3(t *testing.T) { conform(newLab(t), "3") }

func TestLabConformance42(t *testing.T) { conform(newLab(t), "4.2") }

// conform holds the exporter to the whole contract, through clients that stay mounted: with the oldest version, and with the
// newest. It is the kernel's seconds that take long, not ours, so each has a guest of its own (deploy/lab/order).
func conform(l *lab, version string) {
	clients := make(map[netip.Addr]*nfstest.Client)
	drivertest.ExporterConformance(l.T, drivertest.ExporterHarness{
		New: func(t *testing.T, guard drivers.Guard) drivers.Exporter {
			clear(clients)
			at := &lab{t, l.net}
			return at.exporter(at.config(guard))
		},
		Dial: func(t *testing.T, _ drivers.Exporter, as drivertest.Identity) drivertest.Client {
			if clients[as.From] == nil {
				clients[as.From] = nfstest.New(t, nodeAt(t, l.net, as.From), version, options(version)...)
			}
			return clients[as.From]
		},
		Root: func(t *testing.T) (string, string) {
			root := (&lab{t, l.net}).tmpfs()
			return root, t.TempDir()
		},
		Inside: l.net.Nodes[0].IPv4, Outside: l.net.Nodes[1].IPv4,
		GuardOnExport: true, RefusesSize: true, Patience: 5 * time.Minute,
	})
}

func nodeAt(t *testing.T, net *netlab.Net, addr netip.Addr) *netlab.Node {
	for _, node := range net.Nodes {
		if node.IPv4 == addr {
			return node
		}
	}
	t.Fatalf("no node has the address %v", addr)
	return nil
}

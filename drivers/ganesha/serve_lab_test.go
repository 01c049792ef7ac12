//go:build lab

package ganesha_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/ganesha"
	"github.com/cairn-storage/cairn/drivers/nfs/nfstest"
)

// The server is the guest itself, on the bridge of the nodes, which are the clients: the kernel's NFS client mounts Ganesha.
var server = netip.MustParseAddr("10.77.0.254")

func newLabNet(t *testing.T) *netlab.Net {
	net := netlab.New(t, 2)
	must(t, "ip", "address", "add", server.String()+"/24", "dev", "lab0")
	return net
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func labExporter(t *testing.T, guard drivers.Guard) (*ganesha.Exporter, ganesha.Config) {
	t.Helper()
	config := ganesha.DefaultConfig()
	config.StateDir = t.TempDir()
	config.ServiceAddresses = []netip.Addr{server}
	config.Port = freePort(t)       // to a client every exporter is another server
	config.Grace = 20 * time.Second // an emulated client takes long to reclaim
	config.Guard, config.Logger = guard, slog.New(slog.NewTextHandler(t.Output(), nil))
	e, err := ganesha.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, config
}

// TestLabExporterConformance is the whole contract, through clients that stay mounted.
func TestLabExporterConformance(t *testing.T) {
	net := newLabNet(t)
	clients := make(map[netip.Addr]*nfstest.Client)
	drivertest.ExporterConformance(t, drivertest.ExporterHarness{
		New: func(t *testing.T, guard drivers.Guard) drivers.Exporter {
			clear(clients)
			e, _ := labExporter(t, guard)
			return e
		},
		Dial: func(t *testing.T, _ drivers.Exporter, as drivertest.Identity) drivertest.Client {
			if clients[as.From] == nil {
				for _, node := range net.Nodes {
					if node.IPv4 == as.From {
						clients[as.From] = nfstest.New(t, node, "4.2")
					}
				}
			}
			return clients[as.From]
		},
		Inside: net.Nodes[0].IPv4, Outside: net.Nodes[1].IPv4,
		GuardOnExport: true, RefusesSize: true, Patience: 5 * time.Minute,
	})
}

// An open file with a lock, over each version of the protocol: with the export everything goes that keeps a file system
// busy, and a Ganesha that is killed gives the clients their state back.
func TestLabOpenFiles(t *testing.T) {
	net := newLabNet(t)
	for _, version := range []string{"4.0", "4.1", "4.2"} {
		t.Run("v"+version, func(t *testing.T) {
			e, config := labExporter(t, anyone{})
			root := t.TempDir()
			must(t, "mount", "-t", "tmpfs", "test", root)
			mounted := true
			t.Cleanup(func() {
				if mounted {
					must(t, "umount", root)
				}
			})
			spec := drivers.ExportSpec{
				ID: drivers.ExportID{Replica: replicaID}, Share: shareID, Root: root, Epoch: 4, Size: 1 << 30,
				Rules: []cairn.AccessRule{{ID: "r1", Kind: cairn.AccessIP, Who: net.Nodes[0].IPv4.String(), Level: cairn.AccessRW, State: cairn.RuleActive}},
			}
			at, err := e.Export(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := nfstest.New(t, net.Nodes[0], version).Mount(t.Context(), at[0])
			if err != nil {
				t.Fatal(err)
			}
			open, err := os.OpenFile(filepath.Join(dir, "open"), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			if err := errors.Join(syscall.Flock(int(open.Fd()), syscall.LOCK_EX), writeSync(open, "before")); err != nil {
				t.Fatal(err)
			}

			pid, err := os.ReadFile(filepath.Join(config.StateDir, "ganesha.pid"))
			if err != nil {
				t.Fatal(err)
			}
			must(t, "kill", "-KILL", strings.TrimSpace(string(pid)))
			nfstest.Eventually(t, "Ganesha serves again and the client goes on writing", func() bool {
				return writeSync(open, "after!") == nil
			})

			if err := e.Unexport(t.Context(), spec.ID); err != nil {
				t.Fatal(err)
			}
			must(t, "umount", root) // nothing holds it
			mounted = false
			if err := writeSync(open, "late!!"); err == nil {
				t.Error("a write after Unexport was acknowledged")
			}
		})
	}
}

func writeSync(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return errors.Join(err, file.Sync())
}

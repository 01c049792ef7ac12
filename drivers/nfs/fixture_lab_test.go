//go:build lab

package nfs_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs"
	"github.com/cairn-storage/cairn/drivers/nfs/nfstest"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// The server is the guest itself, on the bridge of the nodes, which are the clients.
var (
	server4 = netip.MustParseAddr("10.77.0.254")
	server6 = netip.MustParseAddr("fd77::fe")
)

const (
	replicaID  cairn.ReplicaID  = "0198c000-0000-7000-8000-0000000000a1"
	shareID    cairn.ShareID    = "0198c000-0000-7000-8000-0000000000b1"
	snapshotID cairn.SnapshotID = "0198c000-0000-7000-8000-0000000000c1"
)

// lab is a running NFS server with clients.
type lab struct {
	*testing.T
	net *netlab.Net
}

// newLab makes two clients and starts the NFS server, with the shortest grace period and lease that it takes.
func newLab(t *testing.T) *lab {
	nfstest.Eventually(t, "the network of the test before is gone", func() bool { return nfstest.Absent("/sys/class/net/lab-n1") })
	l := &lab{t, netlab.New(t, 2)}
	l.must("ip", "address", "add", server4.String()+"/24", "dev", "lab0")
	l.must("ip", "address", "add", server6.String()+"/64", "dev", "lab0", "nodad")
	for _, dir := range []string{"/etc/exports.d", "/var/lib/nfs/v4recovery"} {
		l.ok(os.MkdirAll(dir, 0o755))
	}
	for _, file := range []string{"nfsv4gracetime", "nfsv4leasetime"} {
		l.ok(os.WriteFile("/proc/fs/nfsd/"+file, []byte("10"), 0o644))
	}
	l.must("rpcbind", "-w")
	t.Cleanup(func() { l.must("pkill", "-x", "rpcbind") })
	l.startServer()
	t.Cleanup(l.stopServer)
	return l
}

func (l *lab) startServer() {
	l.Helper()
	l.must("rpc.mountd")
	l.must("rpc.nfsd", "4")
}

func (l *lab) stopServer() {
	l.Helper()
	l.must("rpc.nfsd", "0")
	l.stopMountd()
}

func (l *lab) stopMountd() {
	l.Helper()
	l.must("pkill", "-x", "rpc.mountd")
	nfstest.Eventually(l.T, "the end of rpc.mountd", func() bool {
		_, err := tool.NewMachine().Run(l.Context(), tool.Cmd{Name: "pgrep", Args: []string{"-x", "rpc.mountd"}})
		return err != nil
	})
}

func (l *lab) must(name string, args ...string) string {
	l.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	result, err := tool.NewMachine().Run(ctx, tool.Cmd{Name: name, Args: args})
	l.ok(err)
	return strings.TrimSpace(string(result.Stdout))
}

func (l *lab) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// config of an exporter with a root and an exports file of its own.
func (l *lab) config(guard drivers.Guard) nfs.Config {
	l.Helper()
	root, err := os.MkdirTemp("/srv", "cairn")
	l.ok(err)
	l.Cleanup(func() { l.ok(os.Remove(root)) })
	config := nfs.DefaultConfig()
	config.Root = root
	config.ExportsFile = filepath.Join("/etc/exports.d", filepath.Base(root)+".exports")
	config.ServiceAddresses = []netip.Addr{server4, server6}
	config.Runner = &transcript.Recorded{Tools: tool.NewMachine(), Shapes: transcript.ReadShapes(l, "testdata/*.txt"), T: l}
	config.Guard, config.Logger = guard, slog.New(slog.NewTextHandler(l.Output(), nil))
	return config
}

// exporter serves nothing any more when the test ends.
func (l *lab) exporter(config nfs.Config) *nfs.Exporter {
	l.Helper()
	e, err := nfs.New(config)
	l.ok(err)
	l.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		list, err := e.Exports(ctx)
		l.ok(err)
		for _, spec := range list {
			l.ok(e.Unexport(ctx, spec.ID))
		}
		l.ok(os.Remove(config.ExportsFile))
	})
	return e
}

// tmpfs is a file system of its own that costs nothing.
func (l *lab) tmpfs() string {
	l.Helper()
	dir := l.TempDir()
	l.must("mount", "-t", "tmpfs", "test", dir)
	l.Cleanup(func() { l.must("umount", dir) })
	return dir
}

func (l *lab) spec(root string, rules ...cairn.AccessRule) drivers.ExportSpec {
	return drivers.ExportSpec{ID: drivers.ExportID{Replica: replicaID}, Share: shareID, Root: root, Epoch: 4, Size: 1 << 30, Rules: rules}
}

func rule(who string, level cairn.AccessLevel) cairn.AccessRule {
	return cairn.AccessRule{ID: cairn.RuleID("rule-" + who), Kind: cairn.AccessIP, Who: who, Level: level, State: cairn.RuleActive}
}

// callTime bounds each call of an exporter on the emulated processor.
const callTime = time.Minute

func (l *lab) export(e drivers.Exporter, spec drivers.ExportSpec) []cairn.ExportLocation {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), callTime)
	defer cancel()
	at, err := e.Export(ctx, spec)
	l.ok(err)
	return at
}

func (l *lab) unexport(e drivers.Exporter, id drivers.ExportID) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), callTime)
	defer cancel()
	if err := e.Unexport(ctx, id); err != nil {
		l.Fatalf("%v\nwhat the server knows:\n%s", err, l.must("sh", "-c", `cat /proc/fs/nfsd/exports /proc/net/rpc/nfsd.*/content /proc/fs/nfsd/clients/*/states
			grep -E "cairn|zfs|tmpfs" /proc/self/mountinfo; true`))
	}
}

func (l *lab) reads(c *nfstest.Client, at cairn.ExportLocation, name, want string) {
	l.Helper()
	if got, err := c.Read(l.Context(), at, name); err != nil || string(got) != want {
		l.Fatalf("read %s: %q, %v; want %q", name, got, err, want)
	}
}

// anyone lets every epoch be served.
type anyone struct{}

// Check implements drivers.Guard.
func (anyone) Check(cairn.ReplicaID, uint64) error { return nil }

// versions runs a test for each version of the protocol.
func versions(t *testing.T, run func(t *testing.T, version string)) {
	for _, version := range []string{"3", "4.0", "4.1", "4.2"} {
		t.Run(fmt.Sprintf("v%s", version), func(t *testing.T) { run(t, version) })
	}
}

// options of a client of the version: locks of NFSv3 need daemons of their own.
func options(version string) []string {
	if version == "3" {
		return []string{"nolock"}
	}
	return nil
}

//go:build lab

package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/deploy/lab/netlab"
	"github.com/cairn-storage/cairn/drivers/tool"
	cairnv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/v1"
)

const (
	// labPatience is how long nothing takes that works, on an emulated processor.
	labPatience = 3 * time.Minute
	// labSlowness is how many times as long as elsewhere servers wait for each other there.
	labSlowness = 10
	// labMemory is where everything lies that would otherwise wait for the lab's disk.
	labMemory = "/dev/shm"
)

// kernelNFS is a cluster of three servers, each with its own NFS server of the kernel and its own pool on ZFS, with one share
// that fails over by itself; and a machine that has it mounted.
type kernelNFS struct {
	*copied
	net    *netlab.Net
	client *netlab.Node
	path   string // of the share, at every server
	began  time.Time
}

// step says how far the test is.
func (k *kernelNFS) step(what string) {
	k.t.Logf("%s: %s", time.Since(k.began).Round(100*time.Millisecond), what)
}

func startKernelNFS(t *testing.T) *kernelNFS {
	t.Helper()
	began := time.Now()
	t.Setenv("TMPDIR", labMemory)
	private(t, "/srv/cairn")
	private(t, "/etc/exports.d")
	net := netlab.New(t, 4)
	must(t, "ip", "address", "add", networkGate+bridgeBits, "dev", "lab0")
	for _, node := range net.Nodes[:3] {
		serveNFS(t, node)
	}
	c := prepareWith(t, local.Config{Executable: onNodes(t, net.Nodes[:3]), Base: netip.MustParseAddr(networkBase), Patience: labSlowness})
	c.slow = labSlowness
	for range 3 {
		s, err := c.Prepare()
		c.check(err)
		onZFS(c, s)
	}
	k := &kernelNFS{copied: &copied{c, "docs", ""}, net: net, client: net.Nodes[3], began: began}
	t.Cleanup(k.report)
	k.step("machines")
	c.check(c.Start(t.Context(), 3))
	k.step("a cluster")
	c.must(nil, "type", "create", "safe", "--spec", "replication_type=dr", "--spec", "failover=auto", "--spec", "cairn:replication_interval=5s")
	var made cairnv1.Share
	c.must(&made, "share", "create", "docs", "--size", "64MiB", "--proto", "nfs", "--type", "safe", "--replicas", "2", "--service-address", serviceAddress+bridgeBits)
	k.path = "/srv/cairn/" + made.GetId()
	k.step("a share")
	k.must(nil, "access", "allow", "docs", "ip", k.client.IPv4.String(), "rw")
	k.awaitSync(2)
	k.step("in sync")
	return k
}

// private makes a directory one where what a node mounts is seen by nobody else.
func private(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "mount", "--bind", dir, dir)
	t.Cleanup(func() { must(t, "umount", dir) })
	must(t, "mount", "--make-private", dir)
}

func must(t *testing.T, command ...string) {
	t.Helper()
	if err := execute(command...); err != nil {
		t.Fatal(err)
	}
}

// serveNFS makes what a machine has before Cairn comes: an NFS server, with the shortest lease and period of grace that it
// takes, and a zpool.
func serveNFS(t *testing.T, node *netlab.Node) {
	t.Helper()
	node.Must("mount", "-t", "tmpfs", "cairn", "/srv/cairn")
	node.Must("mount", "-t", "tmpfs", "exports", "/etc/exports.d")
	node.Must("rpcbind", "-w")
	node.Must("rpc.mountd")
	node.Must("rpc.nfsd", "--lease-time", "10", "--grace-time", "10", "4")
	disk := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 512<<20)); err != nil {
		t.Fatal(err)
	}
	node.Must("zpool", "create", "-m", "/"+zpoolOf(node.Name), zpoolOf(node.Name), disk)
	t.Cleanup(func() { must(t, "zpool", "destroy", "-f", zpoolOf(node.Name)) })
}

func zpoolOf(node string) string { return "tank-" + node }

// onNodes is a program that runs each server on the node of its name, and every other command here.
func onNodes(t *testing.T, nodes []*netlab.Node) string {
	t.Helper()
	script := "#!/bin/sh\n[ \"$1\" = server ] || exec " + binary + " \"$@\"\ncase \"$3\" in\n"
	for _, node := range nodes {
		name, args := node.Command(binary)
		script += fmt.Sprintf("*/%s/cairn.toml) exec %s %s \"$@\" ;;\n", node.Name, name, strings.Join(args, " "))
	}
	program := filepath.Join(t.TempDir(), "cairn-on-node")
	if err := os.WriteFile(program, []byte(script+"esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return program
}

// onZFS has a prepared server use its node's zpool and NFS server.
func onZFS(c *cluster, s *local.Server) {
	c.t.Helper()
	text, err := os.ReadFile(s.File)
	c.check(err)
	text, _, _ = bytes.Cut(text, []byte("[[pool]]"))
	text = fmt.Appendf(text, "[nfs]\nserver = \"kernel\"\n\n[[pool]]\nname = \"data\"\ndriver = \"zfs\"\n\n[pool.zfs]\ndataset = \"%s/cairn\"\n", zpoolOf(s.Name))
	c.check(os.WriteFile(s.File, text, 0o600))
}

// node is the machine of a server.
func (k *kernelNFS) node(s *local.Server) *netlab.Node {
	for _, n := range k.net.Nodes {
		if n.Name == s.Name {
			return n
		}
	}
	return nil
}

// others are the machines of the other servers.
func (k *kernelNFS) others(s *local.Server) (others []*netlab.Node) {
	for _, other := range k.Servers() {
		if other != s {
			others = append(others, k.node(other))
		}
	}
	return others
}

// mount has the client mount the share at an address, and returns where, and how to end that. What waits for a server that
// nobody hears any more is given up then.
func (k *kernelNFS) mount(address string, options ...string) (dir string, unmount func()) {
	k.t.Helper()
	dir, err := os.MkdirTemp("/srv", "client")
	k.check(err)
	k.client.Must("mount", "-t", "nfs", "-o", strings.Join(append(options, "nosharecache"), ","), address+":"+k.path, dir)
	return dir, func() {
		ctx, cancel := context.WithTimeout(context.Background(), labPatience)
		defer cancel()
		_, err := k.client.Run(ctx, tool.Cmd{Name: "umount", Args: []string{"-f", "-l", dir}})
		if err := errors.Join(err, os.Remove(dir)); err != nil {
			k.t.Errorf("client: %v", err)
		}
	}
}

// report leaves what tells why a test has failed.
func (k *kernelNFS) report() {
	if !k.t.Failed() {
		return
	}
	out := os.Getenv("CAIRN_LAB_OUT")
	for _, s := range k.Servers() {
		text, err := os.ReadFile(s.Log)
		if err := errors.Join(err, os.WriteFile(filepath.Join(out, s.Name+".log"), text, 0o644)); err != nil {
			k.t.Log(err)
		}
	}
	for _, n := range k.net.Nodes {
		const look = `ip -4 address show eth0; ip neighbour; nft list table inet cairn_nfs; exportfs -s; grep -E "cairn|client" /proc/self/mountinfo; cat /proc/fs/nfsd/clients/*/states; dmesg | tail -n 30`
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		result, err := n.Run(ctx, tool.Cmd{Name: "sh", Args: []string{"-c", look}})
		cancel()
		k.t.Logf("%s: %v\n%s", n.Name, err, result.Stdout)
	}
}

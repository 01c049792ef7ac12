//go:build lab

package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cairn-storage/cairn/chaos/local"
	"github.com/cairn-storage/cairn/deploy/lab/labdisk"
)

// operator is one server with two pools on zpools of their own, "one" and "two", served by the kernel's NFS server, and who works with it.
type operator struct {
	*testing.T
	cluster *local.Cluster
}

func newOperator(t *testing.T) *operator {
	dir := t.TempDir()
	config := "\n[nfs]\nserver = \"kernel\"\n"
	for _, name := range []string{"one", "two"} {
		run(t, "zpool", "create", "-m", filepath.Join(dir, name), "lab"+name, labdisk.New(t, 512<<20))
		t.Cleanup(func() { run(t, "zpool", "destroy", "-f", "lab"+name) })
		config = fmt.Sprintf("\n[[pool]]\nname = %q\ndriver = \"zfs\"\n[pool.zfs]\ndataset = \"lab%s\"\n", name, name) + config
	}
	for _, dir := range []string{"/etc/exports.d", "/var/lib/nfs/v4recovery"} {
		check(t, os.MkdirAll(dir, 0o755))
	}
	run(t, "rpcbind", "-w")
	run(t, "rpc.mountd")
	run(t, "rpc.nfsd", "4")
	t.Cleanup(func() {
		run(t, "rpc.nfsd", "0")
		run(t, "pkill", "-x", "rpc.mountd")
		run(t, "pkill", "-x", "rpcbind")
	})
	c, err := local.New(local.Config{Dir: dir, Executable: "cairn", PoolSize: "64MiB", Patience: 5})
	check(t, err)
	t.Cleanup(func() {
		check(t, c.Close())
		if t.Failed() {
			log, _ := os.ReadFile(c.Servers()[0].Log)
			t.Logf("the server's log:\n%s", log)
		}
	})
	server, err := c.Prepare()
	check(t, err)
	text, err := os.ReadFile(server.File)
	check(t, err)
	check(t, os.WriteFile(server.File, append(text, config...), 0o600))
	check(t, c.Start(t.Context(), 1))
	return &operator{t, c}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cairn runs the command line.
func (o *operator) cairn(args ...string) string {
	o.Helper()
	ctx, cancel := context.WithTimeout(o.Context(), 5*time.Minute)
	defer cancel()
	out, err := o.cluster.Run(ctx, args...)
	check(o.T, err)
	return string(out)
}

// file is one file of a dataset, or of a snapshot of it.
func (o *operator) file(dataset, within string) string {
	o.Helper()
	root := strings.TrimSpace(run(o.T, "zfs", "get", "-Hp", "-o", "value", "mountpoint", dataset))
	data, err := os.ReadFile(filepath.Join(root, within, "file"))
	check(o.T, err)
	return string(data)
}

func (o *operator) datasets(zpool string) []string {
	return strings.Fields(run(o.T, "zfs", "list", "-H", "-d", "1", "-t", "filesystem,snapshot", "-o", "name", zpool))
}

// TestLabManage is what an operator does who has a dataset with snapshots, by command line and with a real server: it becomes a
// share with its snapshots, one of these a share on another zpool, and all is given back as it was.
func TestLabManage(t *testing.T) {
	o := newOperator(t)
	run(t, "zfs", "create", "labone/old")
	write := func(text string) {
		root := strings.TrimSpace(run(t, "zfs", "get", "-Hp", "-o", "value", "mountpoint", "labone/old"))
		check(t, os.WriteFile(filepath.Join(root, "file"), []byte(text), 0o644))
	}
	write("monday")
	run(t, "zfs", "snapshot", "labone/old@daily-1")
	write("tuesday")
	run(t, "zfs", "snapshot", "labone/old@daily-2")
	write("today")
	guids := run(t, "zfs", "list", "-Hp", "-d", "1", "-t", "filesystem,snapshot", "-o", "name,guid", "labone/old")

	o.cairn("share", "manage", "docs", "--pool", "n1/one", "--object", "old", "--size", "128MiB", "--proto", "nfs")
	o.cairn("snapshot", "manage", "docs", "daily-1", "--name", "monday")
	o.cairn("snapshot", "manage", "docs", "daily-2", "--name", "tuesday")
	share := ""
	for _, name := range o.datasets("labone") {
		if strings.HasPrefix(name, "labone/") && !strings.Contains(name, "@") {
			share = name
		}
	}
	if share == "" || share == "labone/old" || o.file(share, "") != "today" {
		t.Fatalf("the share's dataset among %v: %q", o.datasets("labone"), share)
	}

	// The pool that has the snapshot takes no new shares: the copy is sent to the other one.
	o.cairn("pool", "freeze", "n1/one")
	o.cairn("share", "create", "copy", "--from-snapshot", "docs/monday", "--proto", "nfs")
	sets := o.datasets("labtwo")
	if len(sets) != 2 || o.file(sets[1], "") != "monday" {
		t.Fatalf("the copy, on the other zpool: %v", sets)
	}
	o.cairn("share", "delete", "copy", "--yes")
	if sets := o.datasets("labtwo"); len(sets) != 1 {
		t.Errorf("left of the copy: %v", sets)
	}

	o.cairn("snapshot", "unmanage", "docs", "monday")
	o.cairn("snapshot", "unmanage", "docs", "tuesday")
	o.cairn("share", "unmanage", "docs", "--object", "old")
	if got := run(t, "zfs", "list", "-Hp", "-d", "1", "-t", "filesystem,snapshot", "-o", "name,guid", "labone/old"); got != guids {
		t.Errorf("given back:\n%s\nand was:\n%s", got, guids)
	}
	if text := o.file("labone/old", "") + o.file("labone/old", ".zfs/snapshot/daily-1"); text != "todaymonday" {
		t.Errorf("given back with %q", text)
	}
}

//go:build lab

package nfs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/deploy/lab/labdisk"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/nfs"
	"github.com/cairn-storage/cairn/drivers/nfs/nfstest"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// TestLabServe shares one server and its clients, which take long to start and to end.
func TestLabServe(t *testing.T) {
	l := newLab(t)
	for _, test := range []struct {
		name string
		run  func(*lab)
	}{
		{"unexport frees the dataset", unexportFreesTheDataset},
		{"fence while writing", fenceWhileWriting},
		{"verified load", verifiedLoad},
		{"snapshots", snapshots},
		{"ipv6", ipv6},
		{"root moves", rootMoves},
		{"refuses", refuses},
		{"others", others},
		{"fence without disk", fenceWithoutDisk},
		{"unexport without server", unexportWithoutServer},
		{"unexport waits", unexportWaits},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(&lab{t, l.net}) })
	}
}

// zpool makes a pool with the dataset share, which holds a file, and returns where the dataset is mounted.
func (l *lab) zpool(name string) string {
	l.Helper()
	l.must("zpool", "create", "-m", "/"+name, name, labdisk.New(l, 128<<20))
	l.Cleanup(func() { l.must("zpool", "destroy", "-f", name) })
	l.must("zfs", "create", name+"/share")
	root := "/" + name + "/share"
	l.ok(os.WriteFile(filepath.Join(root, "hello"), []byte("world"), 0o644))
	return root
}

// An open file on ZFS, over each version of the protocol: a client that is mounted loses access with its rule, and with the
// export everything that keeps the dataset busy.
func unexportFreesTheDataset(l *lab) {
	t := l.T
	root := l.zpool("freed")
	versions(t, func(t *testing.T, version string) {
		l := &lab{t, l.net}
		e := l.exporter(l.config(anyone{}))
		client, other := l.net.Nodes[0], l.net.Nodes[1]
		spec := l.spec(root, rule(client.IPv4.String(), cairn.AccessRW))
		at := l.export(e, spec)[0]
		c := nfstest.New(t, client, version, options(version)...)
		l.reads(c, at, "hello", "world")
		dir, err := c.Mount(t.Context(), at)
		l.ok(err)
		open, err := os.OpenFile(filepath.Join(dir, "open"), os.O_RDWR|os.O_CREATE, 0o644)
		l.ok(err)
		defer open.Close()
		_, err = open.WriteString("before")
		l.ok(errors.Join(err, open.Sync()))
		if version != "3" {
			l.ok(syscall.Flock(int(open.Fd()), syscall.LOCK_EX))
		}

		// Its rule is taken away while it stays mounted.
		spec.Rules = []cairn.AccessRule{rule(other.IPv4.String(), cairn.AccessRW)}
		l.export(e, spec)
		if _, err := c.Read(t.Context(), at, "hello"); !errors.Is(err, cairn.ErrDenied) && !errors.Is(err, cairn.ErrStale) {
			t.Errorf("read by a mounted client whose rule is gone: %v; want a refusal", err)
		}
		if _, err := open.WriteAt([]byte("late"), 0); err == nil && open.Sync() == nil {
			t.Error("a mounted client whose rule is gone wrote to a file that it had open")
		}
		spec.Rules = []cairn.AccessRule{rule(client.IPv4.String(), cairn.AccessRO)}
		l.export(e, spec)
		l.reads(c, at, "hello", "world") // the handles are the same

		l.unexport(e, spec.ID)
		l.must("zfs", "unmount", "freed/share")
		l.must("zfs", "mount", "freed/share")
		if got, err := os.ReadFile(filepath.Join(root, "open")); err != nil || string(got) != "before" {
			t.Errorf("the open file: %q, %v; want what was written before", got, err)
		}
		if text := l.must("exportfs", "-s"); strings.Contains(text, string(shareID)) {
			t.Errorf("still in the table:\n%s", text)
		}
	})
}

// A client that never stops writing, through several files: after the fence not a byte arrives.
func fenceWhileWriting(l *lab) {
	t := l.T
	root := l.zpool("fenced")
	for _, version := range []string{"3", "4.2"} {
		t.Run("v"+version, func(t *testing.T) {
			l := &lab{t, l.net}
			e := l.exporter(l.config(anyone{}))
			spec := l.spec(root, rule(l.net.Nodes[0].IPv4.String(), cairn.AccessRW))
			spec.Epoch = map[string]uint64{"3": 4, "4.2": 9}[version]
			at := l.export(e, spec)[0]
			dir, err := nfstest.New(t, l.net.Nodes[0], version, options(version)...).Mount(t.Context(), at)
			l.ok(err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan int)
			for i := range 4 {
				go func() { ended <- appends(ctx, filepath.Join(dir, "log"+string(rune('0'+i)))) }()
			}
			nfstest.Eventually(t, "all writers have written", func() bool {
				size, n := sizes(t, root)
				return n == 4 && size >= 16
			})

			l.ok(e.Fence(t.Context(), replicaID, spec.Epoch+1))
			before, _ := sizes(t, root)
			l.must("zfs", "unmount", "fenced/share") // nothing holds it
			l.must("zfs", "mount", "fenced/share")
			cancel()
			written := 0
			for range 4 {
				written += <-ended
			}
			after, _ := sizes(t, root)
			if after != before || int64(written) > after {
				t.Errorf("%d bytes after the fence and %d when the writers had ended; %d were acknowledged", before, after, written)
			}
			l.must("rm", "-f", filepath.Join(root, "log0"), filepath.Join(root, "log1"), filepath.Join(root, "log2"), filepath.Join(root, "log3"))
		})
	}
}

// appends writes byte after byte until ctx ends or it fails, and returns how many were acknowledged.
func appends(ctx context.Context, path string) (acknowledged int) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_SYNC, 0o644)
	if err != nil {
		return 0
	}
	defer file.Close()
	for ctx.Err() == nil {
		if _, err := file.Write([]byte("x")); err != nil {
			return acknowledged
		}
		acknowledged++
	}
	return acknowledged
}

func sizes(t *testing.T, root string) (total int64, files int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "log*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total, len(names)
}

// Snapshots that ZFS mounts on demand are served, also after ZFS has unmounted them, and can be destroyed afterwards.
func snapshots(l *lab) {
	t := l.T
	root := l.zpool("frozen")
	l.must("zfs", "snapshot", "frozen/share@yesterday")
	l.ok(os.WriteFile(filepath.Join(root, "hello"), []byte("today"), 0o644))
	e := l.exporter(l.config(anyone{}))
	node := l.net.Nodes[0]
	live := l.spec(root, rule(node.IPv4.String(), cairn.AccessRW))
	snap := live
	snap.ID.Snapshot, snap.ReadOnly, snap.Root = snapshotID, true, filepath.Join(root, ".zfs/snapshot/yesterday")
	now, old := l.export(e, live)[0], l.export(e, snap)[0]
	for _, version := range []string{"3", "4.2"} {
		c := nfstest.New(t, node, version, options(version)...)
		l.reads(c, now, "hello", "today")
		l.reads(c, old, "hello", "world")
		if err := c.Write(t.Context(), old, "hello", []byte("x")); !errors.Is(err, cairn.ErrDenied) {
			t.Errorf("v%s: write to a snapshot: %v; want cairn.ErrDenied", version, err)
		}
	}
	// ZFS still has the snapshot mounted below the share, and did so here before the mount was set apart from its own.
	below := filepath.Join(root, "below")
	l.ok(os.Mkdir(below, 0o755))
	_, path, _ := strings.Cut(now.URL, ":")
	l.must("mount", "--bind", snap.Root, filepath.Join(path, "below"))
	l.unexport(e, live.ID)
	l.ok(os.Remove(below))
	l.export(e, live)
	l.must("umount", snap.Root) // what ZFS does after some minutes, and cannot undo while the server has the snapshot
	c := nfstest.New(t, node, "4.2")
	l.reads(c, old, "hello", "world")
	if list, err := e.Exports(t.Context()); err != nil || !reflect.DeepEqual(list, []drivers.ExportSpec{live, snap}) {
		t.Errorf("Exports after ZFS has unmounted the snapshot: %+v, %v", list, err)
	}
	snap.Rules = append(snap.Rules, rule(l.net.Nodes[1].IPv4.String(), cairn.AccessRO))
	l.export(e, snap)
	l.reads(nfstest.New(t, l.net.Nodes[1], "4.2"), old, "hello", "world")
	l.unexport(e, snap.ID)
	l.must("zfs", "destroy", "frozen/share@yesterday")
	l.unexport(e, live.ID)
	l.must("zfs", "destroy", "frozen/share")
}

func ipv6(l *lab) {
	t := l.T
	e := l.exporter(l.config(anyone{}))
	root := l.tmpfs()
	l.ok(os.WriteFile(filepath.Join(root, "hello"), []byte("world"), 0o644))
	inside, outside := l.net.Nodes[0], l.net.Nodes[1]
	spec := l.spec(root, rule(inside.IPv6.String(), cairn.AccessRW), rule("fd99::/16", cairn.AccessRO))
	at := l.export(e, spec)
	if len(at) != 2 || at[1].URL != "["+server6.String()+"]:"+at[1].URL[len(server6.String())+3:] {
		t.Fatalf("locations: %v; want one of IPv4 and one of IPv6", at)
	}
	for _, version := range []string{"3", "4.2"} {
		l.reads(nfstest.New(t, inside, version, options(version)...), at[1], "hello", "world")
		if _, err := nfstest.New(t, outside, version, options(version)...).Read(t.Context(), at[1], "hello"); err == nil {
			t.Errorf("v%s: a client without a rule reads", version)
		}
	}
	spec.Rules = []cairn.AccessRule{rule("fd77::/64", cairn.AccessRO)}
	l.export(e, spec)
	c := nfstest.New(t, outside, "4.2")
	l.reads(c, at[1], "hello", "world")
	if err := c.Write(t.Context(), at[1], "new", nil); !errors.Is(err, cairn.ErrDenied) {
		t.Errorf("write with an ro rule: %v; want cairn.ErrDenied", err)
	}
}

// A share that moves to another file system on this node, as in a promotion, keeps its path. tmpfs has other handles.
func rootMoves(l *lab) {
	t := l.T
	e := l.exporter(l.config(anyone{}))
	first := l.spec(l.tmpfs(), rule("10.77.0.0/24", cairn.AccessRW))
	second := l.spec(l.tmpfs(), first.Rules...)
	second.ID.Replica, second.Epoch = "0198c000-0000-7000-8000-0000000000a2", 5
	l.ok(os.WriteFile(filepath.Join(first.Root, "hello"), []byte("first"), 0o644))
	l.ok(os.WriteFile(filepath.Join(second.Root, "hello"), []byte("second"), 0o644))
	at := l.export(e, first)[0]
	node := l.net.Nodes[0]
	l.reads(nfstest.New(t, node, "4.2"), at, "hello", "first")
	if again := l.export(e, second)[0]; again != at {
		t.Errorf("location %v became %v", at, again)
	}
	l.reads(nfstest.New(t, node, "4.2"), at, "hello", "second")
	l.must("umount", first.Root) // nothing of the server holds it
	l.must("mount", "-t", "tmpfs", "test", first.Root)
	l.unexport(e, second.ID)
	if list, err := e.Exports(t.Context()); err != nil || len(list) != 1 || list[0].ID != first.ID {
		t.Errorf("Exports: %v, %v; want the first", list, err)
	}
}

func refuses(l *lab) {
	t := l.T
	e := l.exporter(l.config(anyone{}))
	own := l.tmpfs()
	tests := []struct {
		name   string
		change func(*drivers.ExportSpec)
		want   error
	}{
		{"a directory of a file system", func(s *drivers.ExportSpec) { s.Root = t.TempDir() }, cairn.ErrNotSupported},
		{"a directory of a mount", func(s *drivers.ExportSpec) {
			s.Root = filepath.Join(own, "sub")
			l.ok(os.MkdirAll(s.Root, 0o755))
		}, cairn.ErrNotSupported},
		{"a file system without handles", func(s *drivers.ExportSpec) { s.Root = "/proc" }, cairn.ErrNotSupported},
		{"no root", func(s *drivers.ExportSpec) { s.Root = "/no/such/root" }, cairn.ErrNotFound},
		{"a user rule", func(s *drivers.ExportSpec) { s.Rules[0].Kind = cairn.AccessUser }, cairn.ErrNotSupported},
		{"a share that is no UUID", func(s *drivers.ExportSpec) { s.Share = "../etc" }, cairn.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := l.spec(own, rule("10.0.0.0/8", cairn.AccessRW))
			tt.change(&spec)
			if _, err := e.Export(t.Context(), spec); !errors.Is(err, tt.want) {
				t.Errorf("Export: %v; want %v", err, tt.want)
			}
			if text := l.must("exportfs", "-s"); text != "" {
				t.Errorf("in the table:\n%s", text)
			}
		})
	}
}

// The server is restarted, stopped and started behind our back; its file and its table are edited; others refresh it.
func others(l *lab) {
	t := l.T
	config := l.config(anyone{})
	e := l.exporter(config)
	spec := l.spec(l.tmpfs(), rule(l.net.Nodes[0].IPv4.String(), cairn.AccessRW), rule("fd77::/64", cairn.AccessRO))
	l.ok(os.WriteFile(filepath.Join(spec.Root, "hello"), []byte("world"), 0o644))
	theirs := l.tmpfs()
	l.must("exportfs", "-i", "-o", "ro,fsid=7,no_subtree_check", "10.77.0.0/24:"+theirs)
	l.Cleanup(func() { l.must("exportfs", "-u", "10.77.0.0/24:"+theirs) })
	at := l.export(e, spec)[0]
	c := nfstest.New(t, l.net.Nodes[0], "3", "nolock")
	l.reads(c, at, "hello", "world")
	good, err := os.ReadFile(config.ExportsFile)
	l.ok(err)
	ours := func() string {
		var lines []string
		for _, line := range strings.Split(l.must("exportfs", "-s"), "\n") {
			if strings.HasPrefix(line, config.Root) {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	table := ours()
	intact := func(what string) {
		t.Helper()
		list, err := e.Exports(t.Context())
		if err != nil || !reflect.DeepEqual(list, []drivers.ExportSpec{spec}) {
			t.Errorf("%s: Exports: %+v, %v; want the export", what, list, err)
		}
		if text, err := os.ReadFile(config.ExportsFile); err != nil || string(text) != string(good) {
			t.Errorf("%s: the exports file is not what it was: %v\n%s", what, err, text)
		}
		if got := ours(); got != table {
			t.Errorf("%s: the table is\n%s\nand was\n%s", what, got, table)
		}
		if all := l.must("exportfs", "-s"); !strings.Contains(all, theirs+" ") {
			t.Errorf("%s: the export of others is gone:\n%s", what, all)
		}
		l.reads(c, at, "hello", "world")
	}
	intact("at first")
	wide := string(good) + filepath.Join(config.Root, string(shareID)) + " *(rw,no_subtree_check,fsid=99)\n"
	l.ok(os.WriteFile(config.ExportsFile, []byte(wide), 0o644))
	intact("after the file was edited")
	l.must("exportfs", "-i", "-o", "rw,fsid=99", "10.77.0.2:"+filepath.Join(config.Root, string(shareID)))
	intact("after the table was edited")
	l.must("exportfs", "-u", l.net.Nodes[0].IPv4.String()+":"+filepath.Join(config.Root, string(shareID)))
	intact("after a grant was taken from the table")
	l.must("exportfs", "-a")
	intact("after others have read all files")
	l.ok(os.Remove(config.ExportsFile))
	intact("after the file was removed")

	l.stopServer()
	l.startServer()
	l.reads(c, at, "hello", "world")
	intact("after a restart of the server")

	l.must("rpc.nfsd", "0")
	unserved(t, e, spec, "has no threads")
	l.must("rpc.nfsd", "4")
	l.export(e, spec)
	intact("after the server was stopped and started")

	l.stopMountd()
	unserved(t, e, spec, "rpc.mountd does not run")
	l.must("rpc.mountd")
	l.export(e, spec)
	intact("after rpc.mountd was stopped and started")

	l.must("umount", "--lazy", filepath.Join(config.Root, string(shareID)))
	if list, err := e.Exports(t.Context()); err != nil || len(list) != 1 || len(list[0].Rules) != 0 {
		t.Errorf("Exports without the mount: %+v, %v; want the export without rules", list, err)
	}
	l.export(e, spec)
	intact("after the mount was taken away")

	again, err := nfs.New(config) // a restart of Cairn
	l.ok(err)
	e = again
	intact("after a restart of Cairn")
}

// unserved: the fault has a plain text, and nothing is told to be served.
func unserved(t *testing.T, e drivers.Exporter, spec drivers.ExportSpec, why string) {
	t.Helper()
	if list, err := e.Exports(t.Context()); err != nil || len(list) != 1 || len(list[0].Rules) != 0 {
		t.Errorf("%s: Exports: %+v, %v; want the export without rules", why, list, err)
	}
	if _, err := e.Export(t.Context(), spec); !errors.Is(err, cairn.ErrUnavailable) || !strings.Contains(err.Error(), why) {
		t.Errorf("Export: %v; want cairn.ErrUnavailable that says %q", err, why)
	}
}

// An exports file that cannot be written must not keep a fence from holding.
func fenceWithoutDisk(l *lab) {
	t := l.T
	config := l.config(anyone{})
	e := l.exporter(config)
	spec := l.spec(l.tmpfs(), rule("10.77.0.0/24", cairn.AccessRW))
	at := l.export(e, spec)[0]
	c := nfstest.New(t, l.net.Nodes[0], "4.2")
	l.ok(c.Write(t.Context(), at, "before", []byte("x")))
	l.ok(os.Remove(config.ExportsFile))
	l.ok(os.MkdirAll(filepath.Join(config.ExportsFile, "taken"), 0o700)) // what no rename replaces
	if err := e.Fence(t.Context(), replicaID, 5); err == nil || !strings.Contains(err.Error(), "exports file") {
		t.Errorf("Fence: %v; want an error about the exports file", err)
	}
	if err := c.Write(t.Context(), at, "after", []byte("x")); err == nil || !nfstest.Absent(filepath.Join(spec.Root, "after")) {
		t.Errorf("a write below the fence: %v; want that it is refused", err)
	}
	if !nfstest.Absent(filepath.Join(config.Root, string(shareID))) {
		t.Error("the mount is still there")
	}
	l.ok(os.RemoveAll(config.ExportsFile))
	l.ok(e.Fence(t.Context(), replicaID, 5))
	if _, err := e.Export(t.Context(), spec); !errors.Is(err, cairn.ErrStale) {
		t.Errorf("Export below the fence: %v; want cairn.ErrStale", err)
	}
}

// Withdrawing works without the server: nobody is served, and the dataset must become free.
func unexportWithoutServer(l *lab) {
	t := l.T
	e := l.exporter(l.config(anyone{}))
	spec := l.spec(l.tmpfs(), rule("10.77.0.0/24", cairn.AccessRW))
	l.export(e, spec)
	l.stopServer()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.ok(e.Unexport(ctx, spec.ID))
	if list, err := e.Exports(ctx); err != nil || len(list) != 0 {
		t.Errorf("Exports: %v, %v; want none", list, err)
	}
	l.startServer()
}

// A file of another process that keeps the mount busy, as a request on a slow disk does.
func unexportWaits(l *lab) {
	t := l.T
	config := l.config(anyone{})
	waiting := &refusals{Runner: config.Runner}
	config.Runner = waiting
	e := l.exporter(config)
	spec := l.spec(l.tmpfs(), rule("10.77.0.0/24", cairn.AccessRW))
	l.export(e, spec)
	busy, err := os.Create(filepath.Join(config.Root, string(shareID), "busy"))
	l.ok(err)
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	waiting.refused = cancel
	if err := e.Unexport(ctx, spec.ID); !errors.Is(err, cairn.ErrTimeout) {
		t.Errorf("Unexport while something is in progress: %v; want cairn.ErrTimeout", err)
	}
	if text := l.must("exportfs", "-s"); text != "" {
		t.Errorf("in the table:\n%s", text)
	}
	e, err = nfs.New(config) // a restart of Cairn in the middle
	l.ok(err)
	if list, err := e.Exports(t.Context()); err != nil || len(list) != 1 || len(list[0].Rules) != 0 {
		t.Errorf("Exports: %+v, %v; want the export without rules", list, err)
	}
	l.ok(busy.Close())
	l.unexport(e, spec.ID)
	if !nfstest.Absent(filepath.Join(config.Root, string(shareID))) {
		t.Error("the mount point was left")
	}
}

// refusals calls refused when umount has refused three times.
type refusals struct {
	tool.Runner
	refused func()
	count   int
}

func (r *refusals) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	result, err := r.Runner.Run(ctx, c)
	if c.Name == "umount" && err != nil {
		if r.count++; r.count == 3 {
			r.refused()
		}
	}
	return result, err
}

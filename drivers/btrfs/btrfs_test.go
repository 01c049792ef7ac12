package btrfs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/btrfs"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// What is written beyond the size is refused, to uploads as well, and what is removed can be written again.
func TestSizeIsEnforced(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		info, err := f.p.Info(t.Context())
		must(t, err)
		if info.Enforcement != drivers.EnforcedByFileSystem || !info.AtomicSnapshots {
			t.Errorf("Info: %+v; want the file system to enforce sizes", info)
		}
		object := f.create("r1", 8*mib)
		large := filepath.Join(object.Root, "large")
		for _, path := range []string{large, filepath.Join(object.Staging, "large")} {
			if err := os.WriteFile(path, random(16*mib), 0o644); !errors.Is(err, unix.EDQUOT) {
				t.Errorf("a write of twice the size to %s: %v; want EDQUOT", path, err)
			}
			must(t, os.Remove(path))
		}
		is(t, "Resize below what is used", func() error {
			must(t, os.WriteFile(large, random(6*mib), 0o644))
			return f.p.Resize(t.Context(), "r1", 1, 4*mib)
		}(), cairn.ErrDataLoss, "6.0")
		must(t, f.p.Resize(t.Context(), "r1", 1, 32*mib))
		must(t, os.WriteFile(large, random(16*mib), 0o644))
		used, err := f.p.Usage(t.Context(), "r1")
		if err != nil || used < 16*mib || used > 17*mib {
			t.Errorf("Usage: %d, %v; want 16 MiB and a little", used, err)
		}
		// A replica that is full can still be cut, sealed, reverted and removed.
		must(t, errors.Join(os.WriteFile(filepath.Join(object.Root, "rest"), nil, 0o644)))
		if err := os.WriteFile(filepath.Join(object.Root, "rest"), random(32*mib), 0o644); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("a write beyond the size: %v; want EDQUOT", err)
		}
		f.snapshot("r1", "s1")
		must(t, f.p.Seal(t.Context(), "r1", 1))
		must(t, f.p.Unseal(t.Context(), "r1", 1))
		must(t, f.p.Revert(t.Context(), "r1", 1, "s1"))
		_, err = f.p.Clone(t.Context(), spec("r2", 8*mib), "r1", "s1")
		is(t, "Clone into less than what is used", err, cairn.ErrDataLoss)
		must(t, f.p.DeleteSnapshot(t.Context(), "r1", 1, "s1"))
		must(t, f.p.Delete(t.Context(), "r1", 1))
	})
}

// A seal holds against files that were open before, also those that the file system overwrites in place.
func TestSealHoldsOpenFiles(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		root := f.create("r1", gib/8).Root
		must(t, os.WriteFile(filepath.Join(root, "inplace"), nil, 0o644))
		if err := execute("chattr", "+C", filepath.Join(root, "inplace")); err != nil {
			t.Logf("no file that is overwritten in place: %v", err)
		}
		var files []*os.File
		for _, name := range []string{"file", "inplace"} {
			file, err := os.OpenFile(filepath.Join(root, name), os.O_RDWR|os.O_CREATE, 0o644)
			must(t, err)
			defer file.Close()
			_, err = file.Write(bytes.Repeat([]byte("before "), 10_000))
			must(t, err)
			must(t, file.Sync())
			files = append(files, file)
		}
		must(t, f.p.Seal(t.Context(), "r1", 1))
		f.snapshot("r1", "s1")
		for _, file := range files {
			for _, at := range []int64{0, 70_000} {
				if _, err := file.WriteAt([]byte("after"), at); err == nil {
					t.Errorf("%s of a sealed replica was written to at %d", file.Name(), at)
				}
			}
		}
		must(t, f.p.Seal(t.Context(), "r1", 2)) // whose flush brings out what might have been taken
		for _, file := range files {
			if data, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(data, bytes.Repeat([]byte("before "), 10_000)) {
				t.Errorf("%s has changed below the seal (%v)", file.Name(), err)
			}
		}
		if n := f.changed("r1", "s1"); n != 0 {
			t.Errorf("Changed of a sealed replica: %d", n)
		}
		must(t, f.p.Unseal(t.Context(), "r1", 2))
		for _, file := range files {
			_, err := file.WriteAt([]byte("after"), 0)
			must(t, err)
		}
	})
}

// Two file systems as on two nodes: the standby becomes the active one and sends back.
func TestRolesChange(t *testing.T) {
	withDisks(t, 2, func(t *testing.T, disks ...disk) {
		a, b := newFixture(t, disks[0], nil), newFixture(t, disks[1], nil)
		a.create("a1", gib/8)
		a.write("a1", "one")
		a.snapshot("a1", "s1")
		must(t, b.receive("b1", "s1", "", bytes.NewReader(a.send("a1", "s1", ""))))
		if n := b.changed("b1", "s1"); n != 0 {
			t.Errorf("Changed after everything was received: %d; want 0, so that nobody reverts", n)
		}
		a.write("a1", "two")
		a.snapshot("a1", "s2")
		must(t, b.receive("b1", "s2", "s1", bytes.NewReader(a.send("a1", "s2", "s1"))))
		b.holds(b.stat("b1").Root, "one")
		if b.changed("b1", "s2") == 0 {
			t.Error("Changed is 0 while the data is behind what was received")
		}
		must(t, b.p.Revert(t.Context(), "b1", 2, "s2"))
		b.holds(b.stat("b1").Root, "two")
		if n := b.changed("b1", "s2"); n != 0 || !b.stat("b1").Sealed {
			t.Errorf("after Revert of what is sealed: Changed %d, %+v", n, b.stat("b1"))
		}
		must(t, b.p.Unseal(t.Context(), "b1", 2))
		b.write("b1", "three")
		must(t, errors.Join(b.p.DeleteSnapshot(t.Context(), "b1", 2, "s1"), a.p.DeleteSnapshot(t.Context(), "a1", 1, "s1")))
		_, err := b.p.CreateSnapshot(t.Context(), "b1", 2, "s3")
		must(t, err)
		a.write("a1", "diverged")
		must(t, a.receive("a1", "s3", "s2", bytes.NewReader(b.send("b1", "s3", "s2"))))
		a.holds(a.stat("a1").Root, "diverged")
		must(t, a.p.Revert(t.Context(), "a1", 2, "s3"))
		a.holds(a.stat("a1").Root, "three")
		if list := a.stat("a1").Snapshots; len(list) != 2 || list[0].ID != "s2" || list[0].Order >= list[1].Order {
			t.Errorf("snapshots: %+v; want s2 before s3", list)
		}
	})
}

// What a snapshot has arrived with is not part of what is sent from it on.
func TestSendSizeFromWhatArrived(t *testing.T) {
	withDisks(t, 2, func(t *testing.T, disks ...disk) {
		a, b := newFixture(t, disks[0], nil), newFixture(t, disks[1], nil)
		a.create("a1", gib/8)
		must(t, os.WriteFile(filepath.Join(a.stat("a1").Root, "large"), random(16*mib), 0o644))
		a.snapshot("a1", "s1")
		must(t, b.receive("b1", "s1", "", bytes.NewReader(a.send("a1", "s1", ""))))
		must(t, b.p.Unseal(t.Context(), "b1", 1))
		must(t, os.WriteFile(filepath.Join(b.stat("b1").Root, "new"), random(mib), 0o644))
		b.snapshot("b1", "s2")
		size, err := b.p.SendSize(t.Context(), "b1", drivers.SendSpec{Snapshot: "s2", Base: "s1"})
		if err != nil || size < mib || size > 2*mib {
			t.Errorf("SendSize of 1 MiB that is new: %d, %v", size, err)
		}
	})
}

// A stream is of one snapshot, and from a base that is here.
func TestReceiveIsSuspicious(t *testing.T) {
	withDisks(t, 2, func(t *testing.T, disks ...disk) {
		a, b := newFixture(t, disks[0], nil), newFixture(t, disks[1], nil)
		a.create("a1", gib/8)
		for _, snap := range []cairn.SnapshotID{"s1", "s2"} {
			a.write("a1", string(snap))
			a.snapshot("a1", snap)
		}
		is(t, "Receive of another snapshot", b.receive("b1", "s2", "", bytes.NewReader(a.send("a1", "s1", ""))), cairn.ErrPrecondition, "s1")
		is(t, "Receive of what needs a base", b.receive("b1", "s2", "", bytes.NewReader(a.send("a1", "s2", "s1"))), cairn.ErrPrecondition)
		full := a.send("a1", "s1", "")
		for _, end := range []int{1, len(full) / 2, len(full) - 1} {
			if err := b.receive("b1", "s1", "", bytes.NewReader(full[:end])); err == nil {
				t.Errorf("Receive of %d bytes of %d succeeded", end, len(full))
			}
		}
		damaged := slices.Clone(full)
		damaged[len(damaged)*3/4] ^= 1
		if err := b.receive("b1", "s1", "", bytes.NewReader(damaged)); err == nil {
			t.Error("Receive of a damaged stream succeeded")
		}
		list, err := b.p.List(t.Context())
		if err != nil || len(list) != 0 {
			t.Errorf("List after streams that were refused: %+v, %v", list, err)
		}
		_, debris, err := b.Survey(list)
		if err != nil || len(debris) > 0 {
			t.Errorf("streams that were refused left %v, %v", debris, err)
		}
		must(t, b.receive("b1", "s1", "", bytes.NewReader(full)))
		is(t, "Send that resumes", a.p.Send(t.Context(), "a1", drivers.SendSpec{Snapshot: "s1", Resume: "x"}, io.Discard), cairn.ErrInvalid)
	})
}

// An upload that was in progress when a snapshot was cut belongs to nobody who gets the data from it.
func TestUploadsAreNotCopied(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		object := f.create("r1", gib/8)
		f.write("r1", "one")
		must(t, os.WriteFile(filepath.Join(object.Staging, "upload"), []byte("half"), 0o600))
		f.snapshot("r1", "s1")
		_, err := f.p.Clone(t.Context(), spec("r2", gib/8), "r1", "s1")
		must(t, err)
		must(t, f.receive("r3", "s1", "", bytes.NewReader(f.send("r1", "s1", ""))))
		must(t, f.p.Revert(t.Context(), "r1", 1, "s1"))
		for _, id := range []cairn.ReplicaID{"r1", "r2", "r3"} {
			f.holds(f.stat(id).Root, "one")
			if left, err := os.ReadDir(f.stat(id).Staging); err != nil || len(left) > 0 {
				t.Errorf("staging of %s: %v, %v; want nothing", id, left, err)
			}
		}
	})
}

// The disk is full: every call says so, and leaves what there was.
func TestNoSpace(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		f.create("r1", gib/4)
		must(t, os.WriteFile(filepath.Join(f.stat("r1").Root, "file"), random(64*mib), 0o644))
		f.snapshot("r1", "s1")
		fillUp(t, filepath.Join(f.create("r2", 4*gib).Root, "hog"))
		err := f.receive("r3", "s1", "", bytes.NewReader(f.send("r1", "s1", "")))
		is(t, "Receive on a full disk", err, cairn.ErrNoSpace)
		if _, err := f.p.Stat(t.Context(), "r3"); !errors.Is(err, cairn.ErrNotFound) {
			t.Errorf("Stat of what did not fit: %v", err)
		}
		must(t, f.p.Delete(t.Context(), "r2", 1))
		f.holdsSnapshot("r1", "s1")
	})
}

// An unmounted pool is neither empty nor a new one.
func TestUnmounted(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		f.create("r1", gib/8)
		must(t, syscall.Mount("tmpfs", f.path, "tmpfs", 0, ""))
		_, err := f.p.Stat(t.Context(), "r1")
		is(t, "Stat under another mount", err, cairn.ErrUnavailable)
		is(t, "Delete under another mount", f.p.Delete(t.Context(), "r1", 1), cairn.ErrUnavailable)
		_, err = f.p.Create(t.Context(), spec("r2", gib))
		is(t, "Create under another mount", err, cairn.ErrUnavailable)
		must(t, f.p.Close())
		cfg := f.config(nil)
		_, err = btrfs.Open(t.Context(), cfg)
		is(t, "Open of a new pool that is not on btrfs", err, cairn.ErrNotSupported)
		cfg.MustExist = true
		_, err = btrfs.Open(t.Context(), cfg)
		is(t, "Open of a pool that is not mounted", err, cairn.ErrUnavailable)
		must(t, syscall.Unmount(f.path, 0))
		f.open(func(cfg *btrfs.Config) { cfg.MustExist = true })
		_, err = btrfs.Open(t.Context(), cfg)
		is(t, "Open of what is open", err, cairn.ErrInUse)
		f.stat("r1")
		must(t, f.p.Close())
		cfg.PoolID = "node-2/btrfs"
		_, err = btrfs.Open(t.Context(), cfg)
		is(t, "Open as another pool", err, cairn.ErrPrecondition)
		f.open(nil)
	})
}

// A replica that has lost its data is not half made: made again, it would be empty.
func TestLostDataIsCorrupt(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		f.create("r1", gib/8)
		data := filepath.Join(f.path, "r1", "data")
		must(t, os.Rename(data, data+".away"))
		_, err := f.p.Stat(t.Context(), "r1")
		is(t, "Stat", err, cairn.ErrCorrupt)
		_, err = f.p.Create(t.Context(), spec("r1", gib/8))
		is(t, "Create", err, cairn.ErrCorrupt)
		must(t, os.Mkdir(data, 0o755))
		_, err = f.p.Stat(t.Context(), "r1")
		is(t, "Stat of a directory in its place", err, cairn.ErrCorrupt)
		must(t, errors.Join(os.Remove(data), os.Rename(data+".away", data)))
		f.stat("r1")
	})
}

// What others have below the name that is adopted would be lost.
func TestAdoptRefusesNested(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		for _, subvolumes := range []bool{true, false} {
			f.subvolumes = subvolumes
			root, err := f.Plant("theirs")
			must(t, err)
			must(t, execute("btrfs", "subvolume", "create", filepath.Join(root, "nested")))
			_, err = f.p.Adopt(t.Context(), spec("r1", gib/8), "theirs")
			is(t, "Adopt of what has a subvolume in it", err, cairn.ErrInUse, "nested")
			must(t, execute("btrfs", "subvolume", "delete", filepath.Join(root, "nested")))
			must(t, os.WriteFile(filepath.Join(root, "file"), []byte("one"), 0o644))
			_, err = f.p.Adopt(t.Context(), spec("r1", gib/8), "theirs")
			must(t, err)
			f.holds(f.stat("r1").Root, "one")
			must(t, f.p.Delete(t.Context(), "r1", 1))
		}
	})
}

// Quotas cannot be turned on: the exporter has to enforce sizes, and everything else works.
func TestWithoutQuotas(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], func(cfg *btrfs.Config) { cfg.Runner = noQuotas{tool.NewMachine()} })
		info, err := f.p.Info(t.Context())
		must(t, err)
		if info.Enforcement != drivers.EnforcedByExporter || len(info.Notes) == 0 || !strings.Contains(info.Notes[0], "the moon is full") {
			t.Errorf("Info: %+v; want the exporter to enforce sizes, and why", info)
		}
		f.create("r1", gib/8)
		f.write("r1", "one")
		f.snapshot("r1", "s1")
		if used, err := f.p.Usage(t.Context(), "r1"); err != nil || used != 3 {
			t.Errorf("Usage: %d, %v; want what files appear to have", used, err)
		}
		f.write("r1", "two")
		if f.changed("r1", "s1") == 0 {
			t.Error("Changed is 0 after a write")
		}
		must(t, f.p.Seal(t.Context(), "r1", 1))
		must(t, f.p.Unseal(t.Context(), "r1", 1))
		must(t, f.p.Revert(t.Context(), "r1", 1, "s1"))
		f.holds(f.stat("r1").Root, "one")
		must(t, f.receive("r2", "s1", "", bytes.NewReader(f.send("r1", "s1", ""))))
		f.holds(f.stat("r2").Root, "one")
	})
}

// noQuotas is a machine on which they cannot be turned on.
type noQuotas struct{ *tool.Machine }

func (m noQuotas) Run(ctx context.Context, c tool.Cmd) (tool.Result, error) {
	if slices.Equal(c.Args[:min(2, len(c.Args))], []string{"quota", "enable"}) {
		return tool.Result{}, tool.NewExitError(c, 1, nil, []byte("ERROR: the moon is full"))
	}
	return m.Machine.Run(ctx, c)
}

// Opening a pool puts limits right that a crash, or somebody, has left wrong.
func TestOpenSettlesLimits(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		for _, id := range []cairn.ReplicaID{"r1", "r2"} {
			f.create(id, gib/8)
		}
		must(t, f.p.Seal(t.Context(), "r2", 1))
		must(t, f.p.Close())
		must(t, execute("btrfs", "quota", "disable", f.path))
		f.open(nil)
		for id, want := range map[string]int64{"r1": gib / 8, "r2": 1} {
			if got, err := btrfs.LimitOf(filepath.Join(f.path, id, "data")); err != nil || got != want {
				t.Errorf("limit of %s: %d, %v; want %d", id, got, err, want)
			}
		}
	})
}

// Sync points come and go every few seconds, and no groups may be left of them.
func TestGroupsAreDropped(t *testing.T) {
	withDisks(t, 1, func(t *testing.T, disks ...disk) {
		f := newFixture(t, disks[0], nil)
		f.create("r1", gib/8)
		for range 40 {
			f.snapshot("r1", "s1")
			must(t, f.p.DeleteSnapshot(t.Context(), "r1", 1, "s1"))
		}
		must(t, execute("btrfs", "subvolume", "sync", disks[0].dir))
		out, err := tool.NewMachine().Run(t.Context(), tool.Cmd{Name: "btrfs", Args: []string{"qgroup", "show", disks[0].dir}})
		must(t, err)
		if n := strings.Count(string(out.Stdout), "\n0/"); n > 2+16 {
			t.Errorf("%d quota groups are left:\n%s", n, out.Stdout)
		}
	})
}

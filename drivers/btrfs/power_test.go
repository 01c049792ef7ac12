package btrfs_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/cairn-storage/cairn/drivers/btrfs"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// TestPowerLoss takes the disk away at the moment at which a call has succeeded, with nothing that the kernel still holds back,
// and demands that what was acknowledged is on it.
func TestPowerLoss(t *testing.T) {
	withDisks(t, 0, func(t *testing.T, disks ...disk) {
		disks = append(disks, newDisk(t))
		unmount := disks[0].mount(t)
		f := &fixture{TB: t, storage: storage{path: filepath.Join(disks[0].dir, "pool")}}
		f.open(nil)
		ctx := t.Context()
		_, err := f.Plant("theirs")
		must(t, err)
		steps := []struct {
			name string
			do   func() error
		}{
			{"create", func() error { f.create("r1", gib/8); return nil }},
			{"snapshot", func() error {
				must(t, drivertest.Tree{}.Fill(f.stat("r1").Root, "one"))
				f.snapshot("r1", "s1")
				return nil
			}},
			{"receive", func() error {
				return f.receive("r2", "s1", "", bytes.NewReader(f.send("r1", "s1", "")))
			}},
			{"receive on", func() error {
				must(t, drivertest.Tree{}.Fill(f.stat("r1").Root, "two"))
				f.snapshot("r1", "s2")
				return f.receive("r2", "s2", "s1", bytes.NewReader(f.send("r1", "s2", "s1")))
			}},
			{"revert", func() error { return f.p.Revert(ctx, "r2", 2, "s2") }},
			{"unseal", func() error { return f.p.Unseal(ctx, "r2", 3) }},
			{"seal", func() error { return f.p.Seal(ctx, "r1", 4) }},
			{"clone", func() error { _, err := f.p.Clone(ctx, spec("r3", gib/8), "r1", "s1"); return err }},
			{"resize", func() error { return f.p.Resize(ctx, "r3", 1, gib) }},
			{"adopt", func() error { _, err := f.p.Adopt(ctx, spec("r4", gib/8), "theirs"); return err }},
			{"release", func() error { return f.p.Release(ctx, "r3", 1, "ours") }},
			{"delete snapshot", func() error { return f.p.DeleteSnapshot(ctx, "r1", 4, "s1") }},
			{"delete", func() error { return f.p.Delete(ctx, "r4", 1) }},
		}
		for _, step := range steps {
			must(t, step.do())
			after := disk{image: disks[0].image + ".after", dir: disks[0].dir}
			must(t, execute("cp", "--sparse=always", disks[0].image, after.image))
			want := f.observe()
			must(t, f.p.Close())
			unmount()
			unmountLost := after.mount(t)
			f.open(func(cfg *btrfs.Config) { cfg.MustExist = true })
			if got := f.observe(); got != want {
				t.Errorf("power lost after %s:\n%s\nwant\n%s", step.name, got, want)
			}
			must(t, f.p.Close())
			unmountLost()
			unmount = disks[0].mount(t)
			f.open(nil)
		}
		must(t, f.p.Close())
		unmount()
	})
}

func (f *fixture) observe() string {
	f.Helper()
	seen, err := drivertest.Observe(f.Context(), f.p, f, drivertest.Tree{})
	must(f, err)
	return seen.String()
}

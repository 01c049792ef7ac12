package zfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/sim"
	"github.com/cairn-storage/cairn/drivers/tool/transcript"
)

// life makes every call of the driver that needs no data. It is recorded in the lab, and replayed everywhere: what the
// driver asks of the tools is reviewed as text, and what the real tools answer is what it is tested with.
func life(f *fixture, comment func(string)) {
	ctx := f.Context()
	step := func(what string, err, want error) {
		f.Helper()
		if want == nil {
			must(f.T, err)
		} else {
			f.is(what, err, want)
		}
	}
	try := func(what string, want error, call func() error) {
		f.Helper()
		comment(what)
		step(what, call(), want)
	}
	spec := func(id cairn.ReplicaID) drivers.CreateSpec {
		return drivers.CreateSpec{ID: id, Epoch: 1, Size: gib / 8}
	}
	create := func(s drivers.CreateSpec) func() error {
		return func() error { _, err := f.p.Create(ctx, s); return err }
	}
	cut := func(id cairn.ReplicaID, snap cairn.SnapshotID) func() error {
		return func() error { _, err := f.p.CreateSnapshot(ctx, id, 2, snap); return err }
	}
	thick := spec("r2")
	thick.Specs = map[string]string{"zfs:thick": "true", "zfs:snapshot_reserve_percent": "20", "zfs:compression": "lz4"}
	group := []drivers.Cut{{Replica: "r1", Epoch: 2, Snapshot: "g1"}, {Replica: "r2", Epoch: 2, Snapshot: "g2"}}
	var stream []byte

	try("stat of what is absent", cairn.ErrNotFound, func() error { _, err := f.p.Stat(ctx, "r1"); return err })
	try("create", nil, create(spec("r1")))
	try("create what is there", nil, create(spec("r1")))
	try("create, thick and with a reserve", nil, create(thick))
	try("snapshot, with a higher epoch", nil, cut("r1", "s1"))
	try("snapshot that is there", nil, cut("r1", "s1"))
	try("group snapshot", nil, func() error { return f.p.CreateGroupSnapshot(ctx, group) })
	try("revert past a newer snapshot", nil, func() error { return f.p.Revert(ctx, "r1", 2, "s1") })
	try("revert to what lies aside", nil, func() error { return f.p.Revert(ctx, "r1", 2, "g1") })
	try("revert", nil, func() error { return f.p.Revert(ctx, "r1", 2, "g1") })
	try("clone", nil, func() error { _, err := f.p.Clone(ctx, spec("r3"), "r1", "g1"); return err })
	try("delete the origin of a clone", cairn.ErrInUse, func() error { return f.p.DeleteSnapshot(ctx, "r1", 2, "g1") })
	try("grow", nil, func() error { return f.p.Resize(ctx, "r2", 2, gib/7) })
	try("shrink", nil, func() error { return f.p.Resize(ctx, "r2", 2, gib/9) })
	try("usage", nil, func() error { _, err := f.p.Usage(ctx, "r1"); return err })
	try("seal", nil, func() error { return f.p.Seal(ctx, "r1", 3) })
	try("unseal", nil, func() error { return f.p.Unseal(ctx, "r1", 3) })
	try("stale", cairn.ErrStale, func() error { return f.p.Seal(ctx, "r1", 2) })
	try("send from a base that is gone", cairn.ErrNotFound, func() error {
		return f.p.Send(ctx, "r1", drivers.SendSpec{Snapshot: "g1", Base: "s0"}, nil)
	})
	try("send", nil, func() error { stream = f.stream("r1", drivers.SendSpec{Snapshot: "s1"}); return nil })
	try("receive", nil, func() error { return f.receive("r4", "s1", "", stream) })
	try("send what came since", nil, func() error { stream = f.stream("r1", drivers.SendSpec{Snapshot: "g1", Base: "s1"}); return nil })
	try("receive what came since", nil, func() error { return f.receive("r4", "g1", "s1", stream) })
	try("partial", nil, func() error { _, _, err := f.p.Partial(ctx, "r4"); return err })
	try("list", nil, func() error { _, err := f.p.List(ctx); return err })
	try("info", nil, func() error { _, err := f.p.Info(ctx); return err })
	try("revert a thick one past a newer snapshot", nil, func() error {
		must(f.T, cut("r2", "s2")())
		return f.p.Revert(ctx, "r2", 2, "g2")
	})
	try("delete the snapshot that it was reverted to", nil, func() error { return f.p.DeleteSnapshot(ctx, "r2", 2, "g2") })
	try("list with what is aside", nil, func() error { _, err := f.p.List(ctx); return err })
	try("delete the newer one", nil, func() error { return f.p.DeleteSnapshot(ctx, "r2", 2, "s2") })
	f.zfs("snapshot", f.s.dataset+"/r1@daily_00:00")
	try("adopt a snapshot", nil, func() error { return f.p.AdoptSnapshot(ctx, "r1", 3, "s9", "daily_00:00") })
	try("adopt a snapshot that is absent", cairn.ErrNotFound, func() error { return f.p.AdoptSnapshot(ctx, "r1", 3, "s8", "daily_00:00") })
	try("release a snapshot", nil, func() error { return f.p.ReleaseSnapshot(ctx, "r1", 3, "s9", "other") })
	f.zfs("destroy", f.s.dataset+"/r1@daily_00:00")
	try("delete with snapshots", cairn.ErrInUse, func() error { return f.p.Delete(ctx, "r1", 3) })
	try("delete a clone", nil, func() error { return f.p.Delete(ctx, "r3", 2) })
	try("delete a snapshot that was sent", nil, func() error { return f.p.DeleteSnapshot(ctx, "r1", 3, "g1") })
	try("delete another", nil, func() error { return f.p.DeleteSnapshot(ctx, "r1", 3, "s1") })
	try("release", nil, func() error { return f.p.Release(ctx, "r1", 3, "theirs") })
	try("adopt", nil, func() error { _, err := f.p.Adopt(ctx, spec("r5"), "theirs"); return err })
	try("delete", nil, func() error { return f.p.Delete(ctx, "r5", 1) })
	try("delete again", nil, func() error { return f.p.Delete(ctx, "r5", 1) })
}

func TestReplay(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "life.txt"))
	must(t, err)
	recorded, err := transcript.Parse(string(text))
	must(t, err)
	player := transcript.NewPlayer(t, recorded, names(t.TempDir()))
	f := &fixture{T: t, s: storage{machine: machine{Runner: player, zpool: "tank"}, dataset: "tank/cairn"}}
	f.open(nil)
	life(f, func(string) {})
	must(t, f.p.Close())
}

// TestLifeSimulated makes sure that the life which is recorded is one that the simulator lives as well.
func TestLifeSimulated(t *testing.T) {
	m, _ := simulated(t)
	f := &fixture{T: t, s: storage{machine: m, dataset: "tank/cairn"}}
	f.open(nil)
	life(f, func(string) {})
	must(t, f.p.Close())
}

func names(dir string) *transcript.Names {
	return &transcript.Names{Fixed: map[string]string{"/dir": dir}, Cells: sim.Cells, Order: sim.Order}
}

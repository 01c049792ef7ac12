package replica

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/btrfs"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/drivertest"
	"github.com/cairn-storage/cairn/drivers/sim"
	"github.com/cairn-storage/cairn/drivers/tool"
	"github.com/cairn-storage/cairn/drivers/zfs"
	"github.com/cairn-storage/cairn/fsm"
)

// copying is a fleet of two nodes with a share on the first, whose snapshot p1 becomes share "c" on the second.
type copying struct {
	*streams
	disks *disks
}

// disks are the storage of a fleet's nodes, which outlives their processes.
type disks struct {
	caps []cairn.Capability
	// open is called whenever a process starts. Its pool is closed by close before the next one.
	open func(*member) drivers.Pool
	// left lists what is on a node's storage.
	left func(testing.TB, cairn.NodeID) string
}

func newCopying(t *testing.T, d *disks) *copying {
	opened := map[cairn.NodeID]drivers.Pool{}
	f := newFleetOn(t, 1, cairn.FailoverManual, d.caps, func(m *member) drivers.Pool {
		if old, ok := opened[m.id].(io.Closer); ok {
			noError(t, old.Close())
		}
		opened[m.id] = d.open(m)
		return opened[m.id]
	})
	t.Cleanup(func() {
		for _, pool := range opened {
			noError(t, pool.(io.Closer).Close())
		}
	})
	f.enlist("node-2", d.caps)
	c := &copying{&streams{f, rand.New(rand.NewPCG(1, 1))}, d}
	c.put("one", 300<<10)
	c.put("two", 1)
	c.must(t, cutOf("p1"))
	c.settle()
	c.put("one", 1000) // not in the snapshot
	return c
}

// hash looks into a root before it looks at it: a snapshot is mounted when somebody enters it.
func (c *copying) hash(root string) string {
	c.Helper()
	_, err := os.Stat(root + "/.")
	ok(c, err)
	sum, err := drivertest.Tree{Except: ".zfs"}.Fingerprint(root)
	ok(c, err)
	return sum
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func cutOf(id cairn.SnapshotID) *fsm.CreateSnapshot {
	return &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: id, Share: fleetShare, Name: string(id)}}
}

func (c *copying) create() {
	c.Helper()
	create := fsm.CreateShare{
		Share: cairn.Share{
			ID: "s-c", Project: "web", Name: "c", Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "copies", Size: 256 * mib, Source: "p1",
		},
		Replicas: []fsm.Placement{{ID: "r-c", Pool: "node-2/data"}},
	}
	c.must(c, &fsm.CreateFromSnapshot{Create: fsm.CreateFencedShare{Create: create}, From: "r1"})
}

// check makes sure that the share is there with the data of the snapshot, stands on its own, and leaves nothing behind.
func (c *copying) check(want string) {
	c.Helper()
	if err := c.verify(want); err != nil {
		c.Fatal(err)
	}
}

func (c *copying) verify(want string) error {
	share, row := c.View().Share("s-c"), c.View().Replica("r-c")
	object, err := c.nodes["node-2"].pool.Stat(context.Background(), "r-c")
	switch {
	case err != nil:
		return err
	case share.Status != cairn.StatusAvailable || !share.Fault.Healthy() || !row.Settled():
		return fmt.Errorf("share %+v, replica %+v", share, row.Have)
	case !object.Ready || object.Sealed || object.Size != 256*mib || object.Epoch != 1 || len(object.Snapshots) > 0:
		return fmt.Errorf("object %+v", object)
	case c.hash(object.Root) != want:
		return fmt.Errorf("%s has other data than the snapshot", object.Root)
	case c.nodes["node-2"].exporter.specs[drivers.ExportID{Replica: "r-c"}].Root != object.Root:
		return fmt.Errorf("is not served: %+v", c.nodes["node-2"].exporter.specs)
	}
	c.must(c, &fsm.DeleteSnapshot{ID: "p1"})
	c.settle()
	if err := os.WriteFile(filepath.Join(object.Root, "three"), []byte("3"), 0o600); err != nil {
		return err
	}
	c.must(c, &fsm.DeleteShare{ID: "s-c"})
	c.settle()
	if c.View().Share("s-c") != nil || c.View().Snapshot("p1") != nil {
		return fmt.Errorf("does not go: share %+v, snapshot %+v", c.View().Share("s-c"), c.View().Snapshot("p1"))
	}
	return nil
}

// TestCrashCopy ends the process of either node after any step of a copy: a new one over the same disk comes to where the undisturbed
// one came, and leaves nothing more on either disk when the copy and its snapshot are gone.
func TestCrashCopy(t *testing.T) {
	t.Run("dir", func(t *testing.T) { t.Parallel(); sweepCopies(t, dirDisks, 3) })
	t.Run("zfs, simulated", func(t *testing.T) { t.Parallel(); sweepCopies(t, simDisks, 4) })
}

// TestCrashCopyBtrfs is TestCrashCopy on file systems of its own.
func TestCrashCopyBtrfs(t *testing.T) {
	inMounts(t, func(t *testing.T) { sweepCopies(t, btrfsDisks, 4) })
}

func sweepCopies(t *testing.T, disks func(*testing.T) *disks, usual int) {
	clean := newCopying(t, disks(t))
	before := clean.disks.left(t, "node-2")
	want := clean.hash(clean.object("r1").Snapshots[0].Root)
	for _, m := range clean.nodes {
		m.steps = 1 << 20
	}
	clean.create()
	clean.settle()
	points := map[cairn.NodeID]int{}
	for id, m := range clean.nodes {
		points[id], m.steps = 1<<20-m.steps, 0
	}
	clean.check(want)
	if left := clean.disks.left(t, "node-2"); left != before {
		t.Fatalf("left behind:\n%s\nbefore:\n%s", left, before)
	}
	source := clean.disks.left(t, "node-1")
	seed, every := rand.Uint64(), drivertest.Every(t, usual)
	t.Logf("seed %d, one crash point in %d of %v", seed, every, points)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, id := range slices.Sorted(maps.Keys(points)) {
		n := points[id]
		for at := 1; at <= n; at++ {
			if random.IntN(every) != 0 {
				continue
			}
			c := newCopying(t, disks(t))
			want := c.hash(c.object("r1").Snapshots[0].Root)
			m := c.nodes[id]
			m.steps = at
			c.create()
			c.settle()
			if !m.dead {
				t.Fatalf("point %d of %d of %s was not reached", at, n, id)
			}
			c.restart(m)
			c.settle()
			if err := c.verify(want); err != nil {
				t.Fatalf("crash of %s at %d of %d: %v", id, at, n, err)
			}
			if left := c.disks.left(t, "node-2"); left != before {
				t.Fatalf("crash of %s at %d of %d left behind:\n%s\nbefore:\n%s", id, at, n, left, before)
			}
			if left := c.disks.left(t, "node-1"); left != source {
				t.Fatalf("crash of %s at %d of %d left at the source:\n%s\nwithout it:\n%s", id, at, n, left, source)
			}
		}
	}
}

func dirDisks(t *testing.T) *disks {
	base := scratch(t)
	return &disks{
		caps: drivers.CapabilitiesOf(&dir.Pool{}),
		open: func(m *member) drivers.Pool {
			path := filepath.Join(base, string(m.id))
			ok(t, os.MkdirAll(path, 0o700))
			pool, err := dir.Open(t.Context(), dir.Config{Path: path, PoolID: cairn.MakePoolID(m.id, "data"), Logger: slog.New(slog.DiscardHandler), Step: m.diskStep})
			ok(t, err)
			return pool
		},
		left: func(t testing.TB, id cairn.NodeID) string { return listed(t, filepath.Join(base, string(id))) },
	}
}

func btrfsDisks(t *testing.T) *disks {
	base := scratch(t)
	mounted := map[cairn.NodeID]bool{}
	return &disks{
		caps: drivers.CapabilitiesOf(&btrfs.Pool{}),
		open: func(m *member) drivers.Pool {
			path := filepath.Join(base, string(m.id))
			if !mounted[m.id] {
				mountBtrfs(t, path)
				mounted[m.id] = true
			}
			pool, err := btrfs.Open(t.Context(), btrfs.Config{Path: path, PoolID: cairn.MakePoolID(m.id, "data"), Logger: slog.New(slog.DiscardHandler), Step: m.diskStep})
			ok(t, err)
			return pool
		},
		left: func(t testing.TB, id cairn.NodeID) string { return listed(t, filepath.Join(base, string(id))) },
	}
}

func simDisks(t *testing.T) *disks {
	base := scratch(t)
	machines := map[cairn.NodeID]*sim.ZFS{}
	return &disks{
		caps: drivers.CapabilitiesOf(&zfs.Pool{}),
		open: func(m *member) drivers.Pool {
			if machines[m.id] == nil {
				path := filepath.Join(base, string(m.id))
				ok(t, os.MkdirAll(path, 0o700))
				z, err := sim.NewZFS(path, sim.Pool{Name: "tank", Size: 1 << 40})
				ok(t, err)
				machines[m.id] = z
			}
			pool, err := zfs.Open(t.Context(), zfs.Config{
				Dataset: "tank/cairn", PoolID: cairn.MakePoolID(m.id, "data"), Logger: slog.New(slog.DiscardHandler), Runner: mortal{machines[m.id], m},
			})
			ok(t, err)
			return pool
		},
		left: func(t testing.TB, id cairn.NodeID) string {
			out, err := machines[id].Run(t.Context(), tool.Cmd{Name: "zfs", Args: []string{"list", "-Hp", "-t", "filesystem,snapshot", "-o", "name,userrefs"}})
			ok(t, err)
			return string(out.Stdout)
		},
	}
}

// mortal runs tools until the process that asks is dead.
type mortal struct {
	zfs.Runner
	m *member
}

func (r mortal) Run(ctx context.Context, c tool.Cmd) (result tool.Result, err error) {
	step := r.m.diskStep("", func() error { result, err = r.Runner.Run(ctx, c); return nil })
	if err == nil {
		err = step
	}
	return result, err
}

func (r mortal) Stream(ctx context.Context, c tool.Cmd, stdin io.Reader, stdout io.Writer) (result tool.Result, err error) {
	step := r.m.diskStep("", func() error { result, err = r.Runner.Stream(ctx, c, stdin, stdout); return nil })
	if err == nil {
		err = step
	}
	return result, err
}

// diskStep is a step of a real driver, some of whose steps are taken at once.
func (m *member) diskStep(name string, do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.step(context.Background(), name, do)
}

// listed names everything below a directory.
func listed(t testing.TB, path string) string {
	t.Helper()
	var b strings.Builder
	ok(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		fmt.Fprintln(&b, d.Type(), strings.TrimPrefix(name, path))
		return err
	}))
	return b.String()
}

// TestCopyGoesOn: what is said of a copy that cannot go on, that it goes on by itself, and from whom.
func TestCopyGoesOn(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverManual)
	f.enlist("node-3", drivers.CapabilitiesOf(&memoryPool{}))
	f.write("one")
	f.wait()
	f.must(t, cutOf("p1"))
	f.wait()
	f.write("two")
	create := fsm.CreateShare{
		Share: cairn.Share{
			ID: "s-c", Project: "web", Name: "c", Format: cairn.FormatFiles, Protocol: cairn.ProtocolWebDAV, Type: "copies", Size: 128 * mib, Source: "p1",
		},
		Replicas: []fsm.Placement{{ID: "r-c", Pool: "node-3/data"}},
	}
	f.nodes[node1].cut = true
	f.must(t, &fsm.CreateFromSnapshot{Create: fsm.CreateFencedShare{Create: create}, From: "r1"})
	f.settle()
	wantFault(t, "source cut off", f.View().Share("s-c").Fault, cairn.FaultUnknown, "copy snapshot p1: node n1: ")
	f.nodes[node1].disk.worn = "p1"
	f.nodes[node1].cut = false
	f.settle()
	wantFault(t, "source cannot be read", f.View().Share("s-c").Fault, cairn.FaultUnknown, "node n1: "+errMemory.Error())
	if err := f.try(&fsm.DeleteSnapshot{ID: "p1"}); err == nil {
		t.Error("the snapshot can be deleted while it is copied")
	}
	f.down(node1) // another replica has it
	f.pass(f.nodes["node-3"])
	if share := f.View().Share("s-c"); share.Status != cairn.StatusAvailable || !share.Fault.Healthy() || f.data("r-c") != "one" {
		t.Errorf("share %+v with %q", share, f.data("r-c"))
	}
	if len(f.nodes["node-3"].disk.objects["r-c"].snapshots) > 0 {
		t.Error("the copy has the snapshot of its source")
	}
}

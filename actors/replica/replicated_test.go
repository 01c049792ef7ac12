package replica

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

func TestStandbysFollow(t *testing.T) {
	f := newFleet(t, 3, cairn.FailoverManual)
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "")
	f.write("one")
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "one")
	f.expect("r3", cairn.ReplicaInSync, "one")
	if f.full != 2 || f.incremental != 2 {
		t.Errorf("%d full and %d incremental streams", f.full, f.incremental)
	}
	log := f.index
	for range 5 {
		f.write(fmt.Sprint("more ", log))
		f.wait()
	}
	if f.index != log {
		t.Errorf("%d log entries for following", f.index-log)
	}
	streams := f.full + f.incremental
	f.wait()
	if f.full+f.incremental != streams {
		t.Error("something was sent though nothing had changed")
	}
	for id, m := range f.nodes {
		for r, object := range m.disk.objects {
			if len(object.snapshots) > 2 {
				t.Errorf("%s keeps %d sync points of %s", id, len(object.snapshots), r)
			}
		}
	}
}

// A standby that has nothing yet wakes the active replica, whose row does not change with it and which may not look again for a
// minute. Later it wakes nobody but itself.
func TestFirstStandbyWakesItsSource(t *testing.T) {
	f := newFleet(t, 1, cairn.FailoverManual)
	f.enlist("node-2", drivers.CapabilitiesOf(&memoryPool{}))
	f.must(t, &fsm.AddReplica{Share: fleetShare, Replica: fsm.Placement{ID: "r2", Pool: cairn.MakePoolID("node-2", "data")}})
	changes := []fsm.Change{{Table: fsm.TableReplicas, Key: "r2"}}
	before := slices.Collect(Woken(f.View(), node1, changes))
	if len(before) != 1 || before[0].ID != "r1" {
		t.Errorf("a new standby wakes %v, want r1", before)
	}
	f.wait()
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "")
	if after := slices.Collect(Woken(f.View(), node1, changes)); len(after) != 0 {
		t.Errorf("a standby in sync wakes %v", after)
	}
}

// Snapshots of users travel with the streams; one is acknowledged only when every replica in sync has it, and it is the
// same there.
func TestSnapshotsTravel(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverManual)
	f.write("before")
	f.wait()
	f.must(t, &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: "p1", Share: fleetShare, Name: "p1"}})
	f.nodes["node-2"].cut = true
	f.settle()
	if status := f.View().Snapshot("p1").Status; status != cairn.StatusCreating {
		t.Errorf("the snapshot is %s though a replica in sync does not have it", status)
	}
	f.write("after")
	f.nodes["node-2"].cut = false
	f.wait()
	f.wait()
	if snap := f.View().Snapshot("p1"); snap.Status != cairn.StatusAvailable || f.nodes["node-2"].disk.objects["r2"].snapshots["p1"] != "before" {
		t.Errorf("snapshot %+v; the standby has %q", snap, f.nodes["node-2"].disk.objects["r2"].snapshots["p1"])
	}
	f.expect("r2", cairn.ReplicaInSync, "after")
	f.must(t, &fsm.DeleteSnapshot{ID: "p1"})
	f.settle()
	if _, there := f.nodes["node-2"].disk.objects["r2"].snapshots["p1"]; there || f.View().Snapshot("p1") != nil {
		t.Error("the snapshot is still there")
	}
}

// Any order, any number of times, and never again a full stream.
func TestPromoteAround(t *testing.T) {
	f := newFleet(t, 3, cairn.FailoverManual)
	f.wait()
	f.full = 0
	for round, id := range []cairn.ReplicaID{"r2", "r3", "r1", "r3", "r2", "r1", "r2"} {
		text := fmt.Sprint("round ", round)
		f.write(text)
		f.promote(id)
		f.expect(id, cairn.ReplicaActive, text)
		f.write(text + " and on")
		f.wait()
		for _, other := range []cairn.ReplicaID{"r1", "r2", "r3"} {
			if other != id {
				f.expect(other, cairn.ReplicaInSync, text+" and on")
			}
		}
	}
	if f.full != 0 {
		t.Errorf("%d full streams", f.full)
	}
}

// TestFailoverFromASnapshot: what a user has seen in a snapshot is in the share after a failover, though no interval was over since it was cut.
func TestFailoverFromASnapshot(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.write("synced")
	f.wait()
	f.write("in the snapshot")
	f.must(t, &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: "p1", Share: fleetShare, Name: "p1"}})
	f.settle()
	if status := f.View().Snapshot("p1").Status; status != cairn.StatusAvailable {
		t.Fatalf("the snapshot is %s", status)
	}
	f.write("lost")
	f.down("node-1")
	f.failover("r2", "kept-1")
	f.expect("r2", cairn.ReplicaActive, "in the snapshot")
}

func TestFailover(t *testing.T) {
	f := newFleet(t, 3, cairn.FailoverAuto)
	f.write("synced")
	f.wait()
	f.write("lost")
	f.full = 0
	f.down("node-1")
	if m := f.served(); m != nil {
		t.Errorf("%s serves while nobody leads", m.id)
	}
	f.failover("r2", "kept-1")
	f.expect("r2", cairn.ReplicaActive, "synced")
	f.write("new")
	f.wait()
	f.expect("r3", cairn.ReplicaInSync, "new")
	f.up("node-1")
	f.wait()
	f.expect("r1", cairn.ReplicaInSync, "new")
	snap := f.View().Snapshot("kept-1")
	if snap == nil || !snap.Diverged || f.nodes["node-1"].disk.objects["r1"].snapshots["kept-1"] != "lost" {
		t.Errorf("what was written last is not kept: %+v", snap)
	}
	if f.full != 0 {
		t.Errorf("%d full streams", f.full)
	}
	// And back, twice, with what was kept still there.
	f.promote("r1")
	f.promote("r2")
	f.expect("r2", cairn.ReplicaActive, "new")
	if f.nodes["node-1"].disk.objects["r1"].snapshots["kept-1"] != "lost" {
		t.Error("what was kept is gone")
	}
}

// Clients are told where a share is before its first sync point is cut there, which holds them: of many shares that fail over
// together, the last one would wait for all the others' cuts.
func TestFailoverTellsClientsFirst(t *testing.T) {
	tellsClientsFirst(t, newFleet(t, 2, cairn.FailoverAuto))
	tellsClientsFirst(t, newFleet(t, 2, cairn.FailoverAuto, readable)) // where the standby was read says nothing
}

func tellsClientsFirst(t *testing.T, f *fleet) {
	f.write("synced")
	f.wait()
	f.down("node-1")
	f.decide("r2", "kept-1")
	cut := func() bool {
		object, err := f.nodes["node-2"].pool.Stat(t.Context(), "r2")
		if err != nil {
			t.Fatal(err)
		}
		newest := newestSyncPoint(inOrder(object.Snapshots))
		point, ok := ParseSyncPoint(newest)
		return ok && point.Epoch == f.View().Replica("r2").Epoch
	}
	told := func() bool {
		return slices.ContainsFunc(f.View().Replica("r2").Have.Locations, func(l cairn.ExportLocation) bool { return !l.ReadOnly })
	}
	for passes := 0; !told(); passes++ {
		if cut() || passes > 10 {
			t.Fatalf("after %d passes clients know nothing, and a sync point is cut: %t", passes, cut())
		}
		f.pass(f.nodes["node-2"])
	}
	if f.served() == nil || cut() {
		t.Errorf("clients are told of a share that is served: %t; a sync point was cut before: %t", f.served() != nil, cut())
	}
	if f.settle(); !cut() {
		t.Error("no sync point is cut afterwards")
	}
}

// The leader asks a standby that can still reach its active replica: before it takes over from what it told, it has fetched a newer
// sync point and pruned that one. It goes on from the newer one instead of waiting for ever for the other.
func TestStandbyGotFurtherThanItTold(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.write("told")
	f.wait()
	told := f.ask("r2")
	f.write("fetched")
	f.wait()
	if _, there := f.nodes["node-2"].disk.objects["r2"].snapshots[told.Newest]; there {
		t.Fatalf("%s is still there", told.Newest)
	}
	f.down("node-1")
	f.propose("r2", "kept-1", told)
	f.settle()
	f.expect("r2", cairn.ReplicaActive, "fetched")
	f.write("new")
	f.up("node-1")
	f.wait()
	f.expect("r1", cairn.ReplicaInSync, "new")
	if f.nodes["node-1"].disk.objects["r1"].snapshots["kept-1"] != "fetched" {
		t.Error("the old active one did not put aside what it had beyond what was told")
	}
}

// A standby that has not heard of a promotion tells the leader a sync point of the epoch before. Then it hears of it, fetches one of the new
// active replica, and prunes what it told.
func TestStandbyGotToAnotherEpochThanItTold(t *testing.T) {
	f := newFleet(t, 3, cairn.FailoverAuto)
	f.write("told")
	f.wait()
	f.nodes["node-3"].cut = true
	f.promote("r2")
	f.write("fetched")
	f.wait()
	told := f.ask("r3")
	f.nodes["node-3"].cut = false
	f.wait()
	if _, there := f.nodes["node-3"].disk.objects["r3"].snapshots[told.Newest]; there {
		t.Fatalf("%s is still there", told.Newest)
	}
	f.down("node-2")
	f.propose("r3", "kept-1", told)
	f.settle()
	f.expect("r3", cairn.ReplicaActive, "fetched")
	f.write("new")
	f.up("node-2")
	f.wait()
	f.expect("r1", cairn.ReplicaInSync, "new")
	f.expect("r2", cairn.ReplicaInSync, "new")
	if f.nodes["node-2"].disk.objects["r2"].snapshots["kept-1"] != "fetched" {
		t.Error("the old active one did not put aside what it had beyond what was told")
	}
}

// Nothing was written after the last sync: nothing is kept, and no snapshot appears.
func TestFailoverWithoutLoss(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.write("synced")
	f.wait()
	f.down("node-1")
	f.failover("r2", "kept-1")
	f.up("node-1")
	f.wait()
	f.expect("r1", cairn.ReplicaInSync, "synced")
	if f.View().Snapshot("kept-1") != nil {
		t.Error("a diverged snapshot of nothing")
	}
}

// The node that a share was promoted to dies before the old active replica has asked it for anything: that one takes over
// again with what it was sealed with, and not with what it had when it last followed anybody.
func TestOldActiveTakesOverAgain(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.wait()
	f.promote("r2")
	f.write("r1 follows")
	f.wait()
	f.promote("r1")
	for n := range 3 { // what r1 knew as a standby is pruned
		f.write(fmt.Sprint("more ", n))
		f.wait()
	}
	f.must(t, &fsm.PromoteShare{Share: fleetShare, Replica: "r2", Task: "t-last"})
	for turn := 0; f.View().Share(fleetShare).Active != "r2"; turn++ {
		if turn == 20 {
			t.Fatalf("the promotion does not get on: %+v", f.View().Task(fleetShare))
		}
		f.pass(f.nodes[cairn.NodeID(fmt.Sprint("node-", 1+turn%2))])
	}
	f.down("node-2")
	f.failover("r1", "kept-1")
	f.expect("r1", cairn.ReplicaActive, "more 2")
	if m := f.served(); m == nil || m.id != node1 {
		t.Errorf("served by %v; want %s", m, node1)
	}
}

// The old active's process goes on with the old view: it may serve no more once its lease is gone, and a driver call with its
// epoch fails after the new one has come by.
func TestOldEpochIsRefused(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.write("synced")
	f.wait()
	f.down("node-1")
	f.failover("r2", "kept-1")
	f.up("node-1")
	pool := &memoryPool{memory: f.nodes["node-1"].disk, do: func(_ context.Context, _ string, change func() error) error { return change() }}
	if err := pool.Unseal(t.Context(), "r1", 1); err == nil {
		t.Error("the old epoch can still unseal")
	}
}

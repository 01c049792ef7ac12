package replica

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// snapshots cuts p1 to p<n>, each of another text, and lets the standbys follow.
func (f *fleet) snapshots(n int) {
	f.Helper()
	for i := range n {
		id := cairn.SnapshotID(fmt.Sprint("p", i+1))
		f.write("text of " + string(id))
		f.must(f, &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: id, Share: fleetShare, Name: string(id)}})
		f.wait()
	}
	f.write("newest")
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "newest")
}

// lose takes snapshots from a disk behind everybody's back.
func (m *memory) lose(id cairn.ReplicaID, gone func(cairn.SnapshotID) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	object := m.objects[id]
	for _, snap := range slices.Collect(maps.Keys(object.snapshots)) {
		if gone(snap) {
			delete(object.snapshots, snap)
			delete(object.orders, snap)
		}
	}
}

func one(id cairn.SnapshotID) func(cairn.SnapshotID) bool {
	return func(other cairn.SnapshotID) bool { return other == id }
}

func all(cairn.SnapshotID) bool { return true }

// TestActiveReplicaThatHasYetToHear: a snapshot is deleted, the standby has heard of it and the active replica's node has not. What is missing on the
// standby is not lost: nothing is fetched anew, and the snapshot does not come back.
func TestActiveReplicaThatHasYetToHear(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.snapshots(2)
	active, standby := f.nodes["node-1"], f.nodes["node-2"]
	active.viewer.old = f.View()
	f.must(f, &fsm.DeleteSnapshot{ID: "p1"})
	f.full = 0
	for range 5 {
		f.elapsed.Add(int64(defaultInterval))
		f.pass(standby)
	}
	if _, there := standby.disk.objects["r2"].snapshots["p1"]; there {
		t.Error("the deleted snapshot is there")
	}
	if f.full > 0 {
		t.Errorf("%d streams of everything", f.full)
	}
	f.expect("r2", cairn.ReplicaInSync, "newest")
	active.viewer.old = nil
	f.write("heard")
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "heard")
}

// TestLostSnapshotIsFetchedAgain: a standby that has lost a snapshot is not in sync from when it looks, and gets it again,
// together with what is newer, starting from what is older.
func TestLostSnapshotIsFetchedAgain(t *testing.T) {
	for _, test := range []struct {
		lost              cairn.SnapshotID
		full, incremental int // offers that were not taken and the rehearsal included
	}{
		{"p1", 4, 6},
		{"p2", 0, 8},
		{"p3", 0, 4},
	} {
		t.Run(string(test.lost), func(t *testing.T) {
			f := newFleet(t, 2, cairn.FailoverAuto)
			f.snapshots(3)
			m := f.nodes["node-2"]
			m.disk.lose("r2", one(test.lost))
			f.full, f.incremental = 0, 0
			for range 20 {
				f.pass(m)
				_, there := m.disk.objects["r2"].snapshots[test.lost]
				if row := f.View().Replica("r2"); row.State == cairn.ReplicaInSync && !there {
					t.Fatal("in sync without an acknowledged snapshot")
				}
			}
			f.wait()
			f.expect("r2", cairn.ReplicaInSync, "newest")
			for _, id := range []cairn.SnapshotID{"p1", "p2", "p3"} {
				if got := m.disk.objects["r2"].snapshots[id]; got != "text of "+string(id) {
					t.Errorf("%s holds %q", id, got)
				}
				if snap := f.View().Snapshot(id); snap.Status != cairn.StatusAvailable || !snap.Fault.Healthy() {
					t.Errorf("%s is %s, fault %q", id, snap.Status, snap.Fault.Message)
				}
			}
			if f.full != test.full || f.incremental != test.incremental {
				t.Errorf("%d full and %d incremental streams, want %d and %d", f.full, f.incremental, test.full, test.incremental)
			}
		})
	}
}

// TestResyncKeepsTheOnlyGoodCopy: a standby that would have to be fetched anew keeps what it has as long as the active
// replica cannot give all of it.
func TestResyncKeepsTheOnlyGoodCopy(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(f *fleet, active, standby *memory)
		repair func(active *memory) // nil: what is here stays for good
		want   cairn.FaultCode      // of the standby meanwhile
	}{
		{"the active one cannot be read", func(f *fleet, active, standby *memory) {
			standby.lose("r2", func(id cairn.SnapshotID) bool { return id != "p2" && id != "p3" }) // and p1 is lost
			active.worn = "p1"
		}, func(active *memory) { active.worn = "" }, ""},
		{"a later snapshot of the active one cannot be read", func(f *fleet, active, standby *memory) {
			standby.lose("r2", one("p1"))
			active.worn = "p3"
		}, func(active *memory) { active.worn = "" }, ""},
		{"the active one has lost everything in common", func(f *fleet, active, standby *memory) {
			active.lose("r1", all)
		}, nil, cairn.FaultInUse},
		{"the active one has lost what would have to go", func(f *fleet, active, standby *memory) {
			standby.lose("r2", one("p1"))
			active.lose("r1", one("p2"))
		}, nil, cairn.FaultInUse},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet(t, 2, cairn.FailoverAuto)
			f.snapshots(3)
			active, standby := f.nodes["node-1"].disk, f.nodes["node-2"].disk
			test.damage(f, active, standby)
			before := maps.Clone(standby.objects["r2"].snapshots)
			for range 3 {
				f.wait()
				f.must(t, &fsm.ResyncReplica{Replica: "r2"})
			}
			f.wait()
			row := f.View().Replica("r2")
			if row.State == cairn.ReplicaInSync || row.Have.Fault.Code != test.want {
				t.Errorf("the standby is %s, fault %q %q, want %q", row.State, row.Have.Fault.Code, row.Have.Fault.Message, test.want)
			}
			for id, text := range before {
				if _, sync := ParseSyncPoint(id); !sync && standby.objects["r2"].snapshots[id] != text {
					t.Errorf("%s is gone", id)
				}
			}
			if standby.objects["r2"].data != "newest" {
				t.Errorf("the standby's data is %q", standby.objects["r2"].data)
			}
			if test.repair == nil {
				return
			}
			test.repair(active)
			f.wait()
			f.expect("r2", cairn.ReplicaInSync, "newest")
			if got := standby.objects["r2"].snapshots["p1"]; got != "text of p1" {
				t.Errorf("p1 holds %q", got)
			}
		})
	}
}

// TestNothingIsDeletedThatCounts: what a failover may start from is there until the cluster knows that it is not, and a
// standby never says that it could be made active from what it has deleted.
func TestNothingIsDeletedThatCounts(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.snapshots(3)
	m := f.nodes["node-2"]
	m.disk.lose("r2", one("p1"))
	point := newestSyncPoint(slices.Collect(maps.Keys(m.disk.objects["r2"].snapshots)))
	f.asked = func(m *member) {
		has := m.disk.objects["r2"].snapshots
		if _, there := has[point]; !there && f.View().Replica("r2").State == cairn.ReplicaInSync {
			t.Error("deleted what an in_sync replica counts with")
		}
		if newest := m.actor.SyncStates([]cairn.ReplicaID{"r2"})[0].Newest; newest != "" {
			if _, there := has[newest]; !there {
				t.Errorf("offers to take over from %s, which is gone", newest)
			}
		}
	}
	f.wait()
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "newest")
}

// stubborn is a pool that finds every stream unfit, whatever the standby was rolled back to.
type stubborn struct {
	*memoryPool
	streams int
}

func (s *stubborn) Receive(context.Context, drivers.ReceiveSpec, io.Reader) error {
	s.streams++
	return fmt.Errorf("changed since: %w", cairn.ErrPrecondition)
}

// TestRollBackThatDoesNotHelp: a standby that was rolled back, and whose next stream does not fit either, has a fault. It does not go on
// asking for streams in the same pass.
func TestRollBackThatDoesNotHelp(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.snapshots(1)
	m := f.nodes["node-2"]
	pool := &stubborn{memoryPool: m.pool.(*memoryPool)}
	m.actor.cfg.Pools[cairn.MakePoolID(m.id, "data")] = pool
	f.write("later")
	f.elapsed.Add(int64(defaultInterval))
	f.pass(f.nodes["node-1"])
	f.pass(m)
	if fault := f.View().Replica("r2").Have.Fault; pool.streams != 2 || !strings.Contains(fault.Message, "was rolled back to sync-") {
		t.Errorf("%d streams in one pass, fault %q; want 2, and what went wrong", pool.streams, fault.Message)
	}
	m.actor.cfg.Pools[cairn.MakePoolID(m.id, "data")] = m.pool
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "later")
}

// TestRollBackThatIsCutOff: sync points that a roll-back has removed are not told any more, whatever becomes of the rest of it: an operator
// could force the share over to one. What is there is told.
func TestRollBackThatIsCutOff(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto)
	f.write("common")
	f.wait()
	f.nodes["node-2"].cut = true
	f.write("alone")
	f.wait()
	f.nodes["node-2"].cut = false
	f.down("node-1")
	f.failover("r2", "kept-1")
	m := f.nodes["node-1"]
	f.write("new")
	m.cut = false
	f.restart(m)
	reverts := 0
	m.pool.(*memoryPool).do = func(ctx context.Context, name string, change func() error) error {
		if name == "revert" {
			reverts++
			return errMemory
		}
		return m.step(ctx, name, change)
	}
	f.must(t, &fsm.SetNodeState{Node: "node-1", State: cairn.NodeUp})
	for range 10 {
		f.pass(m)
		if told := f.ask("r1"); m.disk.objects["r1"].snapshots[told.Newest] == "" {
			t.Fatalf("%s is told and is not there", told.Newest)
		}
	}
	if reverts == 0 {
		t.Error("nothing was rolled back")
	}
}

// TestRewindThatIsCutOff: a standby that has lost a snapshot goes back, and dies after each number of steps; then the snapshot is deleted, and
// there is no reason to go back any more. What it has by then it can be brought up to date from.
func TestRewindThatIsCutOff(t *testing.T) {
	for _, lost := range []cairn.SnapshotID{"p1", "p2", "p3"} { // with the oldest nothing is in common, and the replica is removed
		for steps := 1; steps <= 12; steps++ {
			t.Run(fmt.Sprintf("%s, step %d", lost, steps), func(t *testing.T) {
				f := newFleet(t, 2, cairn.FailoverAuto)
				f.snapshots(3)
				f.must(t, &fsm.CreateSnapshot{Snapshot: cairn.Snapshot{ID: "p4", Share: fleetShare, Name: "p4"}})
				f.wait() // nothing is written after it, so that it is newer than the newest sync point
				m := f.nodes["node-2"]
				m.disk.lose("r2", one(lost))
				m.steps = steps
				for range 10 {
					f.pass(m)
				}
				f.must(t, &fsm.DeleteSnapshot{ID: lost})
				f.restart(m)
				for range 4 {
					f.wait()
				}
				f.expect("r2", cairn.ReplicaInSync, "newest")
			})
		}
	}
}

package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

func readable(t *cairn.ShareType) { t.Replication = cairn.ReplicationReadable }

// shown is what clients read of a replica that is not active: of what its node's exporter serves and the guard lets through, the
// point that answers; ok is false if there is none.
func (f *fleet) shown(id cairn.ReplicaID) (data string, ok bool) {
	f.Helper()
	row := f.View().Replica(id)
	m := f.nodes[row.Node]
	newest := cairn.SnapshotID("")
	for at, spec := range m.exporter.specs {
		guard := &Guard{Node: m.id, Viewer: f.state, LeaseValid: func() bool { return !m.cut }}
		if m.dead || at.Replica != id || !spec.Standby || guard.Check(id, spec.Epoch) != nil {
			continue
		}
		writes := func(r cairn.AccessRule) bool { return r.Level != cairn.AccessRO }
		if !spec.ReadOnly || slices.ContainsFunc(spec.Rules, writes) || row.Role != cairn.RoleStandby || row.Want.Presence != cairn.Present {
			f.Errorf("%s, which is %s, is served as %+v", id, row.Role, spec)
		}
		if _, there := m.disk.objects[id].snapshots[at.Snapshot]; !there {
			f.Errorf("%s serves %s, which is not there", id, at.Snapshot)
		}
		newest = max(newest, at.Snapshot)
	}
	return m.disk.objects[id].snapshots[newest], newest != ""
}

func (f *fleet) wantShown(id cairn.ReplicaID, want string) {
	f.Helper()
	if got, ok := f.shown(id); !ok || got != want {
		f.Errorf("%s shows %q (%t), want %q", id, got, ok, want)
	}
	at := f.View().Replica(id).Have.Locations
	if len(at) != 1 || !at[0].ReadOnly {
		f.Errorf("%s is to be read at %+v", id, at)
	}
}

func (f *fleet) wantNotShown(id cairn.ReplicaID) {
	f.Helper()
	if got, ok := f.shown(id); ok {
		f.Errorf("%s shows %q", id, got)
	}
	for _, at := range f.View().Replica(id).Have.Locations {
		if at.ReadOnly {
			f.Errorf("%s is still to be read at %+v", id, at)
		}
	}
}

// points lists the sync points that a node serves, oldest first.
func (m *member) points() (ids []cairn.SnapshotID) {
	for at, spec := range m.exporter.specs {
		if spec.Standby {
			ids = append(ids, at.Snapshot)
		}
	}
	slices.Sort(ids)
	return ids
}

// What clients read of a standby goes on with what it has received, through every change of roles.
func TestStandbyIsShown(t *testing.T) {
	f := newFleet(t, 3, cairn.FailoverAuto, readable)
	f.must(t, &fsm.AllowAccess{Rule: cairn.AccessRule{ID: "rule-1", Share: fleetShare, Kind: cairn.AccessIP, Who: "10.0.0.1", Level: cairn.AccessRW}})
	f.write("one")
	f.wait()
	f.wantShown("r2", "one")
	f.wantShown("r3", "one")
	f.wantNotShown("r1")
	f.write("two")
	f.settle() // no interval is over
	f.wantShown("r2", "one")
	log := f.index
	f.wait()
	f.wantShown("r2", "two")
	if f.index != log {
		t.Errorf("%d log entries for going on", f.index-log)
	}
	for _, id := range []cairn.NodeID{"node-2", "node-3"} {
		if points := f.nodes[id].points(); len(points) != 1 {
			t.Errorf("%s serves %v though nobody reads", id, points)
		}
	}
	f.promote("r2")
	f.wantNotShown("r2")
	f.write("three")
	f.wait()
	f.wantShown("r1", "three")
	f.wantShown("r3", "three")

	f.restart(f.nodes["node-3"]) // its exporter has forgotten everything
	f.settle()
	f.wantShown("r3", "three")

	f.write("lost")
	f.down("node-2")
	f.wantShown("r3", "three")
	f.failover("r1", "kept-1")
	f.write("four")
	f.wait()
	f.wantShown("r3", "four")
	f.up("node-2")
	f.wait()
	f.wantShown("r2", "four")
	f.must(t, &fsm.RemoveReplica{Replica: "r3"})
	f.settle()
	if points := f.nodes["node-3"].points(); len(points) != 0 || f.View().Replica("r3") != nil {
		t.Errorf("a replica that was removed serves %v", points)
	}
}

// What the old active replica cut for nobody but itself is never shown, from whatever moment on one looks.
func TestStaleLineIsNotShown(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverAuto, readable)
	f.write("synced")
	f.wait()
	f.nodes["node-2"].cut = true
	f.write("lost")
	f.wait() // r1 cuts a sync point that r2 never gets
	f.nodes["node-2"].cut = false
	f.down("node-1")
	f.failover("r2", "kept-1")
	f.nodes["node-1"].cut = false
	f.restart(f.nodes["node-1"])
	f.must(t, &fsm.SetNodeState{Node: "node-1", State: cairn.NodeUp})
	f.asked = func(*member) {
		if got, ok := f.shown("r1"); ok && got != "synced" {
			t.Errorf("shows %q", got)
		}
	}
	for turn := range 20 {
		f.pass(f.nodes[cairn.NodeID(fmt.Sprint("node-", 1+turn%2))])
		f.asked(nil)
	}
	f.wantShown("r1", "synced")
}

// A standby that cannot be shown is as good a successor as any: it follows, counts as in sync and has no fault. What it has shown until
// then it shows on. But its pass fails with the reason, which is what cairn why tells, and it is tried again.
func TestStandbyThatCannotBeShown(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverManual, readable)
	f.write("before")
	f.wait()
	m := f.nodes["node-2"]
	broken := true
	m.exporter.do = func(ctx context.Context, name string, change func() error) error {
		if broken && name == "export" {
			return syscall.EMFILE
		}
		return m.step(ctx, name, change)
	}
	for _, text := range []string{"one", "two"} {
		f.write(text)
		f.wait()
		f.expect("r2", cairn.ReplicaInSync, text)
		f.wantShown("r2", "before")
	}
	_, err := m.actor.Reconcile(t.Context(), "r2")
	if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "clients cannot read what this standby holds now") {
		t.Errorf("the pass says %v", err)
	}
	broken = false
	f.settle()
	f.wantShown("r2", "two")
	if _, err := m.actor.Reconcile(t.Context(), "r2"); err != nil {
		t.Errorf("afterwards the pass says %v", err)
	}
}

// A share type that says dr shows nothing.
func TestStandbyOfDRIsNotShown(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverManual)
	f.write("one")
	f.wait()
	f.expect("r2", cairn.ReplicaInSync, "one")
	f.wantNotShown("r2")
}

// Who reads is not cut off when the standby goes on, and holds nothing up: what is read stays for a while, and then goes.
func TestReadersGoOnForAWhile(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverManual, readable)
	f.write("begin")
	f.wait()
	m := f.nodes["node-2"]
	first := m.points()[0]
	m.exporter.reading[drivers.ExportID{Replica: "r2", Snapshot: first}] = true
	for n := range 2 * shownCopies {
		f.write(fmt.Sprint("text ", n))
		f.wait()
		f.expect("r2", cairn.ReplicaInSync, fmt.Sprint("text ", n))
		f.wantShown("r2", fmt.Sprint("text ", n))
		if points := m.points(); len(points) != 2 || points[0] != first || m.disk.objects["r2"].snapshots[first] != "begin" {
			t.Fatalf("round %d: serves %v, and %q is read", n, points, m.disk.objects["r2"].snapshots[first])
		}
	}
	delete(m.exporter.reading, drivers.ExportID{Replica: "r2", Snapshot: first})
	f.settle()
	if _, there := m.disk.objects["r2"].snapshots[first]; there || len(m.points()) != 1 {
		t.Errorf("nobody reads any more, and %v is served", m.points())
	}
	for n := range shownMost + 5 { // everybody reads for ever
		m.exporter.reading[drivers.ExportID{Replica: "r2", Snapshot: m.points()[len(m.points())-1]}] = true
		f.write(fmt.Sprint("more ", n))
		f.wait()
		f.wantShown("r2", fmt.Sprint("more ", n))
		if served := len(m.points()); served != min(n+2, shownMost) || len(m.disk.objects["r2"].snapshots) > shownMost+1 {
			t.Errorf("round %d: serves %v, has %d", n, m.points(), len(m.disk.objects["r2"].snapshots))
		}
	}
}

// readers begin and end at random.
func (h *havoc) readers() {
	for _, id := range slices.Sorted(maps.Keys(h.nodes)) {
		m := h.nodes[id]
		for _, snap := range m.points() {
			for r := range h.View().ReplicasOn(m.id) {
				m.exporter.reading[drivers.ExportID{Replica: r.ID, Snapshot: snap}] = h.random.IntN(2) == 0
			}
		}
	}
}

// checkShown: what is read of a standby is what the active replica of this epoch cut under that name, and is there.
func (h *havoc) checkShown() {
	v := h.View()
	active := v.Replica(v.Share(fleetShare).Active)
	for snap, data := range h.nodes[active.Node].disk.objects[active.ID].snapshots {
		if point, ok := ParseSyncPoint(snap); ok && point.Epoch == active.Epoch {
			h.points[snap] = data
		}
	}
	for r := range v.ReplicasOf(fleetShare) {
		m := h.nodes[r.Node]
		h.shown(r.ID)
		if points := m.points(); len(points) > shownMost+1 {
			h.Errorf("%s serves %v", r.ID, points)
		}
		for at, spec := range m.exporter.specs {
			data, cut := h.points[at.Snapshot]
			if point, _ := ParseSyncPoint(at.Snapshot); spec.Standby && point.Epoch != spec.Epoch {
				h.Errorf("%s shows %s in epoch %d", r.ID, at.Snapshot, spec.Epoch)
			}
			if !m.dead && spec.Standby && spec.Epoch == active.Epoch && (!cut || m.disk.objects[r.ID].snapshots[at.Snapshot] != data) {
				h.Errorf("%s shows %q as %s; the active replica has cut %q (%t)", r.ID, m.disk.objects[r.ID].snapshots[at.Snapshot], at.Snapshot, data, cut)
			}
		}
	}
}

// checkAllShown: of a readable share every standby shows what the active replica holds, and says where.
func (h *havoc) checkAllShown() {
	v := h.View()
	active := v.Share(fleetShare).Active
	for r := range v.ReplicasOf(fleetShare) {
		if r.ID == active || v.Type("copies").Replication != cairn.ReplicationReadable {
			h.wantNotShown(r.ID)
		} else {
			h.wantShown(r.ID, h.data(active))
		}
	}
}

// Rules that change during a transfer are enforced during it, and what was allowed before it is not allowed once more after it.
func TestRulesChangeDuringTransfer(t *testing.T) {
	f := newFleet(t, 2, cairn.FailoverManual, readable)
	f.must(t, &fsm.AllowAccess{Rule: cairn.AccessRule{ID: "rule-1", Share: fleetShare, Kind: cairn.AccessIP, Who: "10.0.0.1", Level: cairn.AccessRW}})
	f.wait()
	m := f.nodes["node-2"]
	snap := m.points()[0]
	if rules := m.exporter.specs[drivers.ExportID{Replica: "r2", Snapshot: snap}].Rules; len(rules) != 1 {
		t.Fatalf("rules before: %+v", rules)
	}
	denied, again := make(chan bool, 100), false
	m.exporter.do = func(ctx context.Context, name string, change func() error) error {
		err := m.step(ctx, name, change)
		for _, spec := range m.exporter.specs {
			again = again || name == "export" && len(spec.Rules) > 0
		}
		denied <- name == "export"
		return err
	}
	transfers := 0
	f.asked = func(from *member) {
		if transfers++; transfers > 1 {
			return
		}
		f.must(t, &fsm.DenyAccess{Rule: "rule-1"})
		from.actor.Interrupt(f.View(), "r2")
		select {
		case <-denied:
		case <-time.After(time.Minute):
			t.Error("the rule is still enforced while the transfer goes on")
		}
	}
	f.write("more")
	f.elapsed.Add(int64(defaultInterval))
	f.pass(f.nodes["node-1"])
	f.pass(m)
	f.settle()
	if f.wantShown("r2", "more"); transfers == 0 || again || f.View().Rule("rule-1") != nil {
		t.Errorf("%d transfers; the rule was enforced again: %t; its row: %+v", transfers, again, f.View().Rule("rule-1"))
	}
}

// standbyScene is a standby that has two sync points of its epoch and one of before, and serves the newest.
func standbyScene() scene {
	s := newScene()
	s.Replica.Role, s.Replica.State, s.Readable, s.Shows = cairn.RoleStandby, cairn.ReplicaInSync, true, true
	s.Replica.Have.Locations = []cairn.ExportLocation{{URL: "https://n1/replicas/r/", ReadOnly: true}}
	for i, epoch := range []uint64{1, 2, 2} {
		id := SyncPoint{Epoch: epoch, Seq: uint64(7 + i), At: time.UnixMilli(1)}.ID()
		s.Object.Snapshots = append(s.Object.Snapshots, drivers.SnapshotObject{ID: id, Ready: true, Root: "/pool/r/" + string(id), Order: uint64(1 + i)})
	}
	s.serveAsWanted()
	return s
}

func TestPlanOfReadableStandby(t *testing.T) {
	const old, before, newest = "sync-00000001-00000007-000000000001", "sync-00000002-00000008-000000000001", "sync-00000002-00000009-000000000001"
	serve := func(s *scene, ids ...cairn.SnapshotID) {
		s.Served = nil
		for _, id := range ids {
			s.Served = append(s.Served, s.standby(*s.Have.snapshot(id)))
		}
	}
	for _, tc := range []struct {
		name  string
		spoil func(*scene)
		want  string
	}{
		{"as it should be", func(*scene) {}, "pull"},
		{"nothing served yet", func(s *scene) { s.Served = nil }, "export snapshot " + newest + ", pull"},
		{"clients not told yet", func(s *scene) { s.Replica.Have.Locations = nil }, "export snapshot " + newest + ", pull"},
		{"clients told of the role of before", func(s *scene) { s.Replica.Have.Locations[0].ReadOnly = false }, "export snapshot " + newest + ", pull"},
		{"a newer one: served first, and the one of before not yet withdrawn", func(s *scene) { serve(s, before) }, "export snapshot " + newest + ", pull"},
		{"then the one of before goes", func(s *scene) { serve(s, before, newest) }, "unexport snapshot " + before + ", pull"},
		{"unless it is read", func(s *scene) { serve(s, before, newest); s.Reading = reads(before) }, "pull"},
		{"for too long", func(s *scene) {
			s.Object.Snapshots = append(s.Object.Snapshots, drivers.SnapshotObject{ID: SyncPoint{Epoch: 2, Seq: 9 + shownFor, At: time.UnixMilli(1)}.ID(), Ready: true, Root: "x", Order: 9})
			s.serveAsWanted()
			s.Served = append(s.Served, s.standby(*s.Have.snapshot(before)))
			s.Reading = reads(before)
		}, "unexport snapshot " + before + ", pull"},
		{"so many are read that the oldest goes, where each is a copy", func(s *scene) { crowd(s) }, "unexport snapshot " + before + ", pull"},
		{"and stays where they share blocks", func(s *scene) { s.Info.AtomicSnapshots = true; crowd(s) }, "pull"},
		{"a newer one that is half received", func(s *scene) { s.Object.Snapshots[2].Ready = false; s.serveAsWanted() }, "delete snapshot " + newest + ", pull"},
		{"nothing of this epoch yet", func(s *scene) { s.Replica.Epoch = 3 }, "unexport snapshot " + newest + ", pull"},
		{"nothing of this epoch yet, and it is read", func(s *scene) { s.Replica.Epoch, s.Reading = 3, reads(newest) }, "unexport snapshot " + newest + ", pull"},
		{"the point of an older line is never shown", func(s *scene) { s.Object.Snapshots = s.Object.Snapshots[:1]; s.Served = nil }, "pull"},
		{"a rule is taken away", func(s *scene) { s.Rules = nil }, "export snapshot " + newest + ", pull"},
		{"of one that is still read, too", func(s *scene) { serve(s, before, newest); s.Reading, s.Rules = reads(before), nil },
			"export snapshot " + newest + ", export snapshot " + before + ", pull"},
		{"dr", func(s *scene) { s.Readable = false }, "unexport snapshot " + newest + ", pull"},
		{"an exporter that cannot", func(s *scene) { s.Shows, s.Served = false, nil }, "pull"},
		{"becomes active: the share is served before the point goes", func(s *scene) { s.Replica.Role, s.Reading = cairn.RoleActive, reads(newest) },
			"export, unexport snapshot " + newest},
		{"becomes active, sealed", func(s *scene) { s.Replica.Role, s.Object.Sealed = cairn.RoleActive, true }, "unexport snapshot " + newest + ", unseal"},
		{"writes have to be put aside first", func(s *scene) { s.Replica.Want.Keep.Snapshot = "kept" }, "unexport snapshot " + newest},
		{"is removed", func(s *scene) { s.Replica.Want.Presence = cairn.Absent }, "unexport snapshot " + newest},
		{"lost its data", func(s *scene) { s.Object = nil }, "unexport snapshot " + newest + ", pull"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := standbyScene()
			tc.spoil(&s)
			steps, err := Plan(s.Want, s.Have)
			if got := render(steps, err); got != tc.want {
				t.Errorf("plan: %q, want %q", got, tc.want)
			}
			for _, step := range steps {
				if e := step.Export; step.Op == OpExport && s.Replica.Role == cairn.RoleStandby && (!e.ReadOnly || !e.Standby || e.Root == s.Object.Root || e.Staging != "") {
					t.Errorf("export %+v: want it read-only, from a snapshot", e)
				}
			}
		})
	}
}

// crowd adds as many sync points as a standby shows of copies, and has all of them read.
func crowd(s *scene) {
	for n := range uint64(shownCopies - 1) {
		id := SyncPoint{Epoch: 2, Seq: 10 + n, At: time.UnixMilli(1)}.ID()
		s.Object.Snapshots = append(s.Object.Snapshots, drivers.SnapshotObject{ID: id, Ready: true, Root: "/pool/r/" + string(id), Order: 10 + n})
	}
	s.Served, s.Reading = nil, make(map[cairn.SnapshotID]bool)
	for _, snap := range s.Object.Snapshots[1:] {
		s.Served, s.Reading[snap.ID] = append(s.Served, s.standby(snap)), true
	}
}

func reads(id cairn.SnapshotID) map[cairn.SnapshotID]bool { return map[cairn.SnapshotID]bool{id: true} }

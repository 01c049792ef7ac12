package fsm

import (
	"bytes"

	"pgregory.net/rapid"

	"github.com/cairn-storage/cairn"
)

// checkState holds a machine's state against everything that can be computed from its rows.
func checkState(t rapid.TB, m *Machine) {
	t.Helper()
	v := m.View()
	if got, want := v.Digest(), recomputed(v); got != want {
		t.Errorf("digest %016x, but the rows have %016x", got, want)
	}
	checkUsage(t, v)
	checkReferences(t, v)
	checkReplication(t, v)
	again := restored(t, m)
	if again.View().Digest() != v.Digest() || again.View().Index() != v.Index() {
		t.Errorf("restored: digest %016x at %d, want %016x at %d", again.View().Digest(), again.View().Index(), v.Digest(), v.Index())
	}
	if !bytes.Equal(stream(t, again), stream(t, m)) {
		t.Error("the snapshot of a restored machine has other bytes")
	}
	checkIndexes(t, v, again.View())
}

// recomputed builds the digest from nothing but the rows.
func recomputed(v *View) (digest uint64) {
	codec, hasher := newRowCodec(), newRowCodec()
	for _, table := range v.tables() {
		for key, data := range table.encoded(codec) {
			digest ^= hasher.sum(table.tableName(), key, data)
		}
	}
	return digest
}

func stream(t rapid.TB, m *Machine) []byte {
	t.Helper()
	var buf bytes.Buffer
	n, err := m.Snapshot().WriteTo(&buf)
	if err != nil || n != int64(buf.Len()) {
		t.Fatalf("WriteTo returned %d, %v for %d bytes", n, err, buf.Len())
	}
	return buf.Bytes()
}

func restored(t rapid.TB, m *Machine) *Machine {
	t.Helper()
	again := New()
	if err := again.Restore(bytes.NewReader(stream(t, m))); err != nil {
		t.Fatal(err)
	}
	return again
}

// checkUsage counts usage and provisioning anew: they are kept up to date in small steps, so a forgotten step shows here.
func checkUsage(t rapid.TB, v *View) {
	t.Helper()
	usage, promised := map[cairn.ProjectID]cairn.Usage{}, map[cairn.PoolID]int64{}
	for s := range v.Shares("") {
		u := usage[s.Project]
		for r := range v.ReplicasOf(s.ID) {
			promised[r.Pool] += max(s.Size, r.Want.Size)
			u.Bytes += max(s.Size, r.Want.Size)
		}
		u.Project, u.Shares = s.Project, u.Shares+1
		usage[s.Project] = u
	}
	for s := range v.Snapshots("") {
		u := usage[s.Project]
		u.Snapshots, u.SnapshotBytes = u.Snapshots+1, u.SnapshotBytes+s.Size
		usage[s.Project] = u
	}
	if len(usage) != v.usage.len() || len(promised) != v.provisioned.len() {
		t.Errorf("%d rows of usage and %d of provisioning, want %d and %d", v.usage.len(), v.provisioned.len(), len(usage), len(promised))
	}
	for project, want := range usage {
		if got := v.Usage(project); got != want {
			t.Errorf("usage %+v, want %+v", got, want)
		}
	}
	for pool, want := range promised {
		if got := v.Provisioned(pool); got != want {
			t.Errorf("pool %s has promised %d, want %d", pool, got, want)
		}
	}
}

// checkReferences looks for rows that point to nothing: the leaks of a state machine.
func checkReferences(t rapid.TB, v *View) {
	t.Helper()
	for s := range v.Shares("") {
		if v.Replica(s.Active) == nil {
			t.Errorf("share %s has no active replica", s.ID)
		}
	}
	for r := range v.Replicas() {
		if v.Share(r.Share) == nil || v.Node(r.Node) == nil || v.Pool(r.Pool) == nil {
			t.Errorf("replica %s has no share, node or pool", r.ID)
		}
	}
	for s := range v.Snapshots("") {
		if v.Share(s.Share) == nil || first(v.InstancesOf(s.ID)) == nil {
			t.Errorf("snapshot %s has no share or no instance", s.ID)
		}
	}
	for i := range v.instances.all("") {
		if v.Snapshot(i.Snapshot) == nil || v.Replica(i.Replica) == nil {
			t.Errorf("instance %s/%s has no snapshot or no replica", i.Snapshot, i.Replica)
		}
	}
	for o := range v.origins.all("") {
		if v.Snapshot(o.Snapshot) == nil {
			t.Errorf("origin of snapshot %s, which is gone", o.Snapshot)
		}
	}
	for r := range v.rules.all("") {
		if v.Share(r.Share) == nil || r.Snapshot != "" && v.Snapshot(r.Snapshot) == nil {
			t.Errorf("rule %s has no share or no snapshot", r.ID)
		}
	}
	for task := range v.Tasks("") {
		if v.Share(task.Share) == nil {
			t.Errorf("task %s has no share", task.ID)
		}
	}
	next := v.FirstEvent()
	for e := range v.Events(0) {
		if e.Seq != next {
			t.Errorf("event %d follows %d", e.Seq, next-1)
		}
		next++
	}
}

// checkReplication holds roles, states, epochs and wishes of replicas against each other.
func checkReplication(t rapid.TB, v *View) {
	t.Helper()
	for s := range v.Shares("") {
		active, task := v.Replica(s.Active), v.Task(s.ID)
		nodes := map[cairn.NodeID]bool{}
		for r := range v.ReplicasOf(s.ID) {
			isActive, promoting := r.ID == s.Active, task.Running() && task.Kind == cairn.TaskPromote
			if isActive != (r.Role == cairn.RoleActive) || isActive != (r.State == cairn.ReplicaActive) {
				t.Errorf("share %s: active is %s, but replica %s is %s and %s", s.ID, s.Active, r.ID, r.Role, r.State)
			}
			if r.Epoch != active.Epoch {
				t.Errorf("replica %s has epoch %d, the active one %d", r.ID, r.Epoch, active.Epoch)
			}
			if nodes[r.Node] {
				t.Errorf("share %s has two replicas on node %s", s.ID, r.Node)
			}
			nodes[r.Node] = true
			if r.Want.Sealed != (isActive && promoting && task.Replica != r.ID) || r.Want.SyncTo != "" && !(promoting && task.Replica == r.ID && !isActive) {
				t.Errorf("replica %s: wants %+v with task %+v", r.ID, r.Want, task)
			}
			if !isActive && r.Want.Revert != "" {
				t.Errorf("standby %s is to be reverted", r.ID)
			}
			if s.Status == cairn.StatusDeleting && (r.Want.Presence == cairn.Present || r.Want.Keep != cairn.Keep{}) {
				t.Errorf("replica %s of a share that is being deleted: wants %+v", r.ID, r.Want)
			}
			if r.State == cairn.ReplicaInSync && s.Status != cairn.StatusDeleting {
				checkInSync(t, v, r)
			}
		}
		if task.Running() && task.Kind == cairn.TaskPromote {
			if to := v.Replica(task.Replica); to == nil || to.Share != s.ID || to.Want.Presence != cairn.Present {
				t.Errorf("share %s is to be promoted to %s: %+v", s.ID, task.Replica, to)
			}
		}
		checkAcknowledged(t, v, s)
	}
}

func checkInSync(t rapid.TB, v *View, r *cairn.Replica) {
	t.Helper()
	if r.Want.Presence != cairn.Present || r.Have.Presence != cairn.Present || r.Want.Keep != (cairn.Keep{}) || v.Node(r.Node).State != cairn.NodeUp {
		t.Errorf("replica %s is in sync: %+v", r.ID, r)
	}
	for snap := range v.SnapshotsOf(r.Share) {
		if snap.Status != cairn.StatusAvailable || snap.Diverged {
			continue
		}
		if i := v.Instance(snap.ID, r.ID); i == nil || i.Have != cairn.Present {
			t.Errorf("replica %s is in sync without snapshot %s: %+v", r.ID, snap.ID, i)
		}
	}
}

// checkAcknowledged: of a snapshot that was acknowledged the active replica has a copy, or a fault says that it has lost it:
// it would cut one that it is said never to have had. Nobody is asked for a diverged one that does not have it.
func checkAcknowledged(t rapid.TB, v *View, s *cairn.Share) {
	t.Helper()
	for snap := range v.SnapshotsOf(s.ID) {
		if i := v.Instance(snap.ID, s.Active); snap.Status == cairn.StatusAvailable && !snap.Diverged &&
			(i == nil || i.Want != cairn.Present || i.Have != cairn.Present && i.Fault.Healthy()) {
			t.Errorf("snapshot %s is available, but the active replica has %+v", snap.ID, i)
		}
		for i := range v.InstancesOf(snap.ID) {
			if snap.Diverged && i.Have != cairn.Present && i.Want == cairn.Present && i.Fault.Healthy() {
				t.Errorf("snapshot %s has diverged, but is wanted on %s", snap.ID, i.Replica)
			}
		}
	}
}

// checkIndexes compares the indexes, which are kept in small steps, with those that a restore has built anew.
func checkIndexes(t rapid.TB, kept, built *View) {
	t.Helper()
	sameIndexes(t, kept.nodes, built.nodes)
	sameIndexes(t, kept.shares, built.shares)
	sameIndexes(t, kept.replicas, built.replicas)
	sameIndexes(t, kept.snapshots, built.snapshots)
	sameIndexes(t, kept.instances, built.instances)
	sameIndexes(t, kept.rules, built.rules)
	sameIndexes(t, kept.tasks, built.tasks)
	sameIndexes(t, kept.requests, built.requests)
}

func sameIndexes[R any](t rapid.TB, a, b *table[R]) {
	t.Helper()
	for n := range a.indexes {
		var left, right []entry
		a.indexes[n].entries.Ascend(func(e entry) bool { left = append(left, e); return true })
		b.indexes[n].entries.Ascend(func(e entry) bool { right = append(right, e); return true })
		if len(left) != len(right) {
			t.Errorf("index %d of %s has %d entries, want %d", n, a.name, len(left), len(right))
			continue
		}
		for i := range left {
			if left[i] != right[i] {
				t.Errorf("index %d of %s: entry %v, want %v", n, a.name, left[i], right[i])
			}
		}
	}
}

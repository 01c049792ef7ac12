package fsm

import (
	"errors"
	"testing"

	"github.com/cairn-storage/cairn"
)

// twoReplicas has share s1 with a second replica on another node. No command makes one yet, but the rows can hold it, and
// what ends a share must not be done when only one of its replicas is.
func twoReplicas(t *testing.T) *Machine {
	t.Helper()
	m := smallMachine(t)
	apply(t, m, &DeleteSnapshot{ID: "p1"})
	answerFor(t, m, "r-s1", cairn.Present, SnapshotHave{Snapshot: "p1", Have: cairn.Absent})
	apply(t, m, &CreateJoinToken{cairn.JoinToken{ID: "k", Node: "n2", Name: "n2", SecretHash: hashOf("s"), ExpiresAt: 1 << 40}})
	apply(t, m, &ConsumeJoinToken{ID: "k", SecretHash: hashOf("s"), KeyHash: hashOf("k")})
	apply(t, m, &RegisterNode{cairn.Node{ID: "n2", Name: "n2", Address: "a", CommandVersion: 1}})
	apply(t, m, &RegisterPools{Node: "n2", Pools: []cairn.Pool{bigPool("n2", "fast")}})
	tx := newTx(m.live, Meta{}, m.codec)
	if err := tx.promise(tx.Pool("n2/fast"), 1<<30); err != nil {
		t.Fatal(err)
	}
	second := *tx.Replica("r-s1")
	second.ID, second.Node, second.Pool, second.Role, second.State = "r-second", "n2", "n2/fast", cairn.RoleStandby, cairn.ReplicaInSync
	put(tx, tx.replicas, &second)
	m.frozen = nil
	checkState(t, m)
	return m
}

// answerFor reports for the newest generation with the size that is wanted.
func answerFor(t *testing.T, m *Machine, id cairn.ReplicaID, presence cairn.Presence, snapshots ...SnapshotHave) {
	t.Helper()
	r := m.View().Replica(id)
	apply(t, m, &ReportReplica{
		Node: r.Node, Replica: id, Generation: r.Generation, Epoch: r.Epoch,
		Have: cairn.ReplicaHave{Presence: presence, Size: r.Want.Size}, Snapshots: snapshots,
	})
	checkState(t, m)
}

func TestResizeWaitsForAllReplicas(t *testing.T) {
	m := twoReplicas(t)
	apply(t, m, &ResizeShare{ID: "s1", Size: 2 << 30, Task: "t"})
	if used := m.View().Provisioned("n2/fast"); used != 2<<30 {
		t.Errorf("the second pool has promised %d", used)
	}
	answerFor(t, m, "r-s1", cairn.Present)
	if v := m.View(); v.Share("s1").Size != 1<<30 || !v.Task("s1").Running() {
		t.Error("the share has its new size before the second replica has")
	}
	answerFor(t, m, "r-second", cairn.Present)
	if v := m.View(); v.Share("s1").Size != 2<<30 || v.Task("s1").State != cairn.TaskSucceeded {
		t.Error("the share has not its new size")
	}
}

func TestRevertWaitsForAllReplicas(t *testing.T) {
	m := twoReplicas(t)
	apply(t, m, &CreateSnapshot{cairn.Snapshot{ID: "p2", Share: "s1", Name: "p2"}})
	have := SnapshotHave{Snapshot: "p2", Have: cairn.Present}
	answerFor(t, m, "r-s1", cairn.Present, have)
	if status := m.View().Snapshot("p2").Status; status != cairn.StatusCreating {
		t.Errorf("with one of two instances the snapshot is %s", status)
	}
	answerFor(t, m, "r-second", cairn.Present, have)
	apply(t, m, &RevertShare{ID: "s1", Snapshot: "p2", Task: "t"})
	answerFor(t, m, "r-s1", cairn.Present, have)
	answerFor(t, m, "r-s1", cairn.Present, have)
	if !m.View().Task("s1").Running() {
		t.Error("the revert is over before the second replica has gone back")
	}
	answerFor(t, m, "r-second", cairn.Present, have)
	if !m.View().Task("s1").Running() {
		t.Error("the revert is over before the second replica is served again")
	}
	answerFor(t, m, "r-second", cairn.Present, have)
	if m.View().Task("s1").Running() {
		t.Error("the revert is not over")
	}
	apply(t, m, &DeleteSnapshot{ID: "p2"})
	answerFor(t, m, "r-s1", cairn.Present, SnapshotHave{Snapshot: "p2", Have: cairn.Absent})
	if m.View().Snapshot("p2") == nil {
		t.Error("the snapshot is gone while an instance is left")
	}
	answerFor(t, m, "r-second", cairn.Present, SnapshotHave{Snapshot: "p2", Have: cairn.Absent})
	if m.View().Snapshot("p2") != nil {
		t.Error("the snapshot is still there")
	}
}

func TestShareGoesWithItsLastReplica(t *testing.T) {
	m := twoReplicas(t)
	apply(t, m, &DeleteShare{ID: "s1"})
	answerFor(t, m, "r-second", cairn.Absent)
	if v := m.View(); v.Share("s1") == nil || v.Provisioned("n2/fast") != 0 || v.Usage("web").Shares != 1 {
		t.Error("the share is gone, or its second replica is not")
	}
	answerFor(t, m, "r-s1", cairn.Absent)
	if v := m.View(); v.Share("s1") != nil || v.Usage("web") != (cairn.Usage{Project: "web"}) {
		t.Error("the share is not gone")
	}
}

func TestRemovedNodeLosesOnlyItsReplica(t *testing.T) {
	m := twoReplicas(t)
	if r := try(t, m, Meta{}, &RemoveNode{Node: "n2"}); !errors.Is(r.Err, cairn.ErrInUse) {
		t.Errorf("%v, want %v", r.Err, cairn.ErrInUse)
	}
	apply(t, m, &RemoveNode{Node: "n2", Force: true})
	checkState(t, m)
	if v := m.View(); v.Share("s1") == nil || v.Replica("r-second") != nil || v.Replica("r-s1") == nil {
		t.Error("the share should be left with its first replica")
	}
}

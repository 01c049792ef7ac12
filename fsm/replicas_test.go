package fsm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cairn-storage/cairn"
)

// twoReplicas has share s1 with its active replica r-s1 on n1, and the standby r-second on n2, which is not there yet.
func twoReplicas(t *testing.T) *Machine {
	t.Helper()
	m := smallMachine(t)
	apply(t, m, &DeleteSnapshot{ID: "p1"})
	answerFor(t, m, "r-s1", cairn.Present, SnapshotHave{Snapshot: "p1", Have: cairn.Absent})
	apply(t, m, &DeleteShare{ID: "s1"})
	answerFor(t, m, "r-s1", cairn.Absent)
	secondNode(t, m)
	apply(t, m, &CreateType{cairn.ShareType{
		Name: "twin", Format: cairn.FormatFiles, Replication: cairn.ReplicationReadable, Snapshots: true, Revert: true,
	}})
	share := createShare("s1", 1<<30)
	share.Share.Type = "twin"
	apply(t, m, share)
	answerFor(t, m, "r-s1", cairn.Present)
	apply(t, m, &AddReplica{Share: "s1", Replica: Placement{ID: "r-second", Pool: "n2/fast"}})
	checkState(t, m)
	return m
}

func secondNode(t *testing.T, m *Machine) {
	t.Helper()
	apply(t, m, &CreateJoinToken{cairn.JoinToken{ID: "k", Node: "n2", Name: "n2", SecretHash: hashOf("s"), ExpiresAt: 1 << 40}})
	apply(t, m, &ConsumeJoinToken{ID: "k", SecretHash: hashOf("s"), KeyHash: hashOf("k")})
	apply(t, m, &RegisterNode{cairn.Node{ID: "n2", Name: "n2", Address: "a", CommandVersion: 1}})
	apply(t, m, &RegisterPools{Node: "n2", Pools: []cairn.Pool{bigPool("n2", "fast")}})
}

// answerFor reports for the newest generation with the size that is wanted; a standby is in sync.
func answerFor(t *testing.T, m *Machine, id cairn.ReplicaID, presence cairn.Presence, snapshots ...SnapshotHave) {
	t.Helper()
	r := m.View().Replica(id)
	apply(t, m, &ReportReplica{
		Node: r.Node, Replica: id, Generation: r.Generation, Epoch: r.Epoch,
		Have:      cairn.ReplicaHave{Presence: presence, Size: r.Want.Size, InSync: r.Role == cairn.RoleStandby},
		Snapshots: snapshots,
	})
	checkState(t, m)
}

func TestResizeWaitsForAllReplicas(t *testing.T) {
	m := twoReplicas(t)
	answerFor(t, m, "r-second", cairn.Present)
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

// TestResizeStopsWaiting: whatever makes a standby count no more ends a resize that waited for nothing else, for nobody
// would report again.
func TestResizeStopsWaiting(t *testing.T) {
	for name, leave := range map[string]func(m *Machine){
		"its node goes down":   func(m *Machine) { apply(t, m, &SetNodeState{Node: "n2", State: cairn.NodeDown}) },
		"it is to be removed":  func(m *Machine) { apply(t, m, &RemoveReplica{Replica: "r-second"}) },
		"its node is removed":  func(m *Machine) { apply(t, m, &RemoveNode{Node: "n2", Force: true}) },
		"it says that it left": func(m *Machine) { answerFor(t, m, "r-second", cairn.Absent) },
	} {
		t.Run(name, func(t *testing.T) {
			m := twoReplicas(t)
			answerFor(t, m, "r-second", cairn.Present)
			apply(t, m, &ResizeShare{ID: "s1", Size: 2 << 30, Task: "t"})
			apply(t, m, &AllowAccess{cairn.AccessRule{ID: "late", Share: "s1", Kind: cairn.AccessIP, Who: "10.0.0.1", Level: cairn.AccessRW}})
			answerFor(t, m, "r-s1", cairn.Present)
			leave(m)
			checkState(t, m)
			v := m.View()
			if v.Share("s1").Size != 2<<30 || v.Task("s1").State != cairn.TaskSucceeded {
				t.Errorf("the resize still waits: %+v", v.Task("s1"))
			}
			if active := v.Replica("r-s1"); v.Rule("late").State != cairn.RuleApplying || active.Settled() {
				t.Errorf("the rule is %s, and the active replica need not answer for it: %v", v.Rule("late").State, active.Settled())
			}
		})
	}
}

// TestRulesAreAskedOfTheActive: a report of a standby may be what hands changes of rules over, but it is not the answer.
func TestRulesAreAskedOfTheActive(t *testing.T) {
	m := twoReplicas(t)
	answerFor(t, m, "r-second", cairn.Present)
	apply(t, m, &ResizeShare{ID: "s1", Size: 2 << 30, Task: "t"})
	apply(t, m, &AllowAccess{cairn.AccessRule{ID: "late", Share: "s1", Kind: cairn.AccessIP, Who: "10.0.0.1", Level: cairn.AccessRW}})
	answerFor(t, m, "r-s1", cairn.Present)
	before := m.View().Replica("r-s1")
	answerFor(t, m, "r-second", cairn.Present)
	late := &ReportReplica{
		Node: "n1", Replica: "r-s1", Generation: before.Generation, Epoch: before.Epoch,
		Have: cairn.ReplicaHave{Presence: cairn.Present, Size: 2 << 30},
	}
	if r := try(t, m, Meta{}, late); !errors.Is(r.Err, cairn.ErrStale) {
		t.Errorf("a report from before the rule was handed over: %v, want %v", r.Err, cairn.ErrStale)
	}
	answerFor(t, m, "r-s1", cairn.Present)
	if state := m.View().Rule("late").State; state != cairn.RuleActive {
		t.Errorf("the rule is %s", state)
	}
	if state := m.View().Replica("r-second").State; state != cairn.ReplicaInSync {
		t.Errorf("the standby is %s, though nothing but rules has changed", state)
	}
}

// TestOnlyTheActiveReverts: the others follow it, as they follow every write.
func TestOnlyTheActiveReverts(t *testing.T) {
	m := twoReplicas(t)
	answerFor(t, m, "r-second", cairn.Present)
	apply(t, m, &CreateSnapshot{cairn.Snapshot{ID: "p2", Share: "s1", Name: "p2"}})
	have := SnapshotHave{Snapshot: "p2", Have: cairn.Present}
	answerFor(t, m, "r-s1", cairn.Present, have)
	if status := m.View().Snapshot("p2").Status; status != cairn.StatusCreating {
		t.Errorf("with one of two instances the snapshot is %s", status)
	}
	answerFor(t, m, "r-second", cairn.Present, have)
	apply(t, m, &RevertShare{ID: "s1", Snapshot: "p2", Task: "t"})
	if v := m.View(); v.Replica("r-s1").Want.Revert != "p2" || v.Replica("r-second").Want.Revert != "" {
		t.Error("the revert is not wanted of the active replica alone")
	}
	answerFor(t, m, "r-s1", cairn.Present, have)
	answerFor(t, m, "r-second", cairn.Present, have)
	if !m.View().Task("s1").Running() {
		t.Error("the revert is over before the active replica is served again")
	}
	answerFor(t, m, "r-s1", cairn.Present, have)
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

// TestShareGoesWithItsLastReplica in any order; the active one's row stays to the end.
func TestShareGoesWithItsLastReplica(t *testing.T) {
	for _, order := range [][]cairn.ReplicaID{{"r-s1", "r-second"}, {"r-second", "r-s1"}} {
		m := twoReplicas(t)
		answerFor(t, m, "r-second", cairn.Present)
		apply(t, m, &DeleteShare{ID: "s1"})
		answerFor(t, m, order[0], cairn.Absent)
		if v := m.View(); v.Share("s1") == nil || v.Replica("r-s1") == nil || v.Usage("web").Shares != 1 {
			t.Errorf("%v: the share is gone after the first", order)
		}
		answerFor(t, m, order[1], cairn.Absent)
		if v := m.View(); v.Share("s1") != nil || v.Usage("web") != (cairn.Usage{Project: "web"}) {
			t.Errorf("%v: the share is not gone", order)
		}
	}
}

func TestRemovedNodeLosesOnlyItsReplica(t *testing.T) {
	m := twoReplicas(t)
	if r := try(t, m, Meta{}, &RemoveNode{Node: "n2"}); !errors.Is(r.Err, cairn.ErrInUse) {
		t.Errorf("%v, want %v", r.Err, cairn.ErrInUse)
	}
	if r := try(t, m, Meta{}, &RemoveNode{Node: "n1", Force: true}); !errors.Is(r.Err, cairn.ErrPrecondition) {
		t.Errorf("the node of the active replica: %v, want %v", r.Err, cairn.ErrPrecondition)
	}
	apply(t, m, &RemoveNode{Node: "n2", Force: true})
	checkState(t, m)
	if v := m.View(); v.Share("s1") == nil || v.Replica("r-second") != nil || v.Replica("r-s1") == nil {
		t.Error("the share should be left with its first replica")
	}
}

// TestDeletedShareOutlivesNoNode: a share that is being deleted must not keep a node that never comes back from being
// removed, and must go when the rest of it is gone.
func TestDeletedShareOutlivesNoNode(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []cairn.ReplicaID // gone already when the node is removed
		remove cairn.NodeID
		after  []cairn.ReplicaID
	}{
		{"the active's, first of all", nil, "n1", []cairn.ReplicaID{"r-second"}},
		{"the active's, after the standby has gone", []cairn.ReplicaID{"r-second"}, "n1", nil},
		{"the active's, after it has gone", []cairn.ReplicaID{"r-s1"}, "n1", []cairn.ReplicaID{"r-second"}},
		{"the standby's, first of all", nil, "n2", []cairn.ReplicaID{"r-s1"}},
		{"the standby's, after the active has gone", []cairn.ReplicaID{"r-s1"}, "n2", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := twoReplicas(t)
			answerFor(t, m, "r-second", cairn.Present)
			apply(t, m, &DeleteShare{ID: "s1"})
			for _, id := range c.before {
				answerFor(t, m, id, cairn.Absent)
			}
			apply(t, m, &SetNodeState{Node: c.remove, State: cairn.NodeDown})
			apply(t, m, &RemoveNode{Node: c.remove, Force: true})
			checkState(t, m)
			for _, id := range c.after {
				if m.View().Share("s1") == nil {
					t.Fatal("the share is gone before its last replica")
				}
				answerFor(t, m, id, cairn.Absent)
			}
			if m.View().Share("s1") != nil {
				t.Error("the share is still there")
			}
		})
	}
}

func TestReplicasAreBounded(t *testing.T) {
	m := twoReplicas(t)
	for n := 3; n <= MaxReplicas+1; n++ {
		node := cairn.NodeID(fmt.Sprintf("n%d", n))
		token := cairn.TokenID("k" + string(node))
		apply(t, m, &CreateJoinToken{cairn.JoinToken{ID: token, Node: node, Name: string(node), SecretHash: hashOf("s"), ExpiresAt: 1 << 40}})
		apply(t, m, &ConsumeJoinToken{ID: token, SecretHash: hashOf("s"), KeyHash: hashOf("k")})
		apply(t, m, &RegisterNode{cairn.Node{ID: node, Name: string(node), Address: "a", CommandVersion: 1}})
		apply(t, m, &RegisterPools{Node: node, Pools: []cairn.Pool{bigPool(node, "fast")}})
		more := &AddReplica{Share: "s1", Replica: Placement{ID: "r-" + cairn.ReplicaID(node), Pool: cairn.MakePoolID(node, "fast")}}
		switch r := try(t, m, Meta{}, more); {
		case n <= MaxReplicas && r.Err != nil:
			t.Errorf("replica %d: %v", n, r.Err)
		case n > MaxReplicas && !errors.Is(r.Err, cairn.ErrPrecondition):
			t.Errorf("replica %d: %v, want %v", n, r.Err, cairn.ErrPrecondition)
		}
	}
}

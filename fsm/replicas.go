package fsm

import (
	"iter"
	"slices"

	"github.com/cairn-storage/cairn"
)

// want changes what is wanted of every replica of a share and raises their generation: an answer to what was wanted before
// is stale from now on. change may be nil, when what changed is in another table (rules, snapshots).
func (tx *Tx) want(share cairn.ShareID, change func(*cairn.ReplicaWant)) {
	for _, old := range slices.Collect(tx.ReplicasOf(share)) {
		tx.wantOf(old, change)
	}
}

// wantOf is want for one replica.
func (tx *Tx) wantOf(old *cairn.Replica, change func(*cairn.ReplicaWant)) {
	row := *old
	if change != nil {
		change(&row.Want)
	}
	row.Generation++
	put(tx, tx.replicas, &row)
}

// reserved is how many bytes a replica counts with: a running extension counts from the start, a running shrink to its end.
func reserved(s *cairn.Share, r *cairn.Replica) int64 { return max(s.Size, r.Want.Size) }

// dropReplica removes a replica with its snapshot instances and gives capacity and quota back.
func (tx *Tx) dropReplica(s *cairn.Share, r *cairn.Replica) {
	tx.takeBack(r.Pool, reserved(s, r))
	tx.giveBack(s.Project, cairn.Limits{Bytes: reserved(s, r)})
	for _, i := range slices.Collect(tx.InstancesOn(r.ID)) {
		remove(tx, tx.instances, instanceKey(i.Snapshot, i.Replica))
	}
	remove(tx, tx.replicas, string(r.ID))
}

// dropShare removes a share with everything that belongs to it, and gives capacity and quota back.
func (tx *Tx) dropShare(s *cairn.Share) {
	for _, r := range slices.Collect(tx.ReplicasOf(s.ID)) {
		tx.dropReplica(s, r)
	}
	for _, snap := range slices.Collect(tx.SnapshotsOf(s.ID)) {
		tx.dropSnapshot(snap)
	}
	for _, rule := range slices.Collect(tx.allRulesOf(s.ID)) {
		remove(tx, tx.rules, string(rule.ID))
	}
	remove(tx, tx.tasks, string(s.ID))
	remove(tx, tx.addresses, string(s.ID))
	remove(tx, tx.shares, string(s.ID))
	tx.giveBack(s.Project, cairn.Limits{Shares: 1})
}

// dropSnapshot removes a snapshot with its rules and gives its quota back.
func (tx *Tx) dropSnapshot(snap *cairn.Snapshot) {
	for _, i := range slices.Collect(tx.InstancesOf(snap.ID)) {
		remove(tx, tx.instances, instanceKey(i.Snapshot, i.Replica))
	}
	for _, rule := range slices.Collect(tx.RulesOf(snap.Share, snap.ID)) {
		remove(tx, tx.rules, string(rule.ID))
	}
	remove(tx, tx.origins, string(snap.ID))
	remove(tx, tx.snapshots, string(snap.ID))
	tx.giveBack(snap.Project, cairn.Limits{Snapshots: 1, SnapshotBytes: snap.Size})
}

// faultOf derives the fault of a share from its active replica and from what that stands on. The outermost cause wins: of a
// node that is down nothing else is known.
func (tx *Tx) faultOf(s *cairn.Share, active *cairn.Replica) cairn.Fault {
	node, pool, have := tx.Node(active.Node), tx.Pool(active.Pool), active.Have
	found := have.Fault
	switch {
	case node.State == cairn.NodeDown:
		found = cairn.Fault{Code: cairn.FaultNodeDown, Message: "node " + node.Name + " is down"}
	case !pool.Fault.Healthy():
		found = cairn.Fault{Code: cairn.FaultPool, Message: "pool " + tx.poolLabel(pool) + ": " + pool.Fault.Message}
	case found.Healthy() && s.Status == cairn.StatusAvailable && have.Presence != cairn.Present:
		found = cairn.Fault{Code: cairn.FaultMissing, Message: "is not in pool " + tx.poolLabel(pool) + " any more"}
	}
	return tx.since(s.Fault, found)
}

// refault derives the faults of the shares of the given replicas anew, after their node or pool changed.
func (tx *Tx) refault(replicas iter.Seq[*cairn.Replica]) {
	for _, r := range slices.Collect(replicas) {
		row := *tx.Share(r.Share)
		if row.Active == r.ID {
			row.Fault = tx.faultOf(&row, r)
			put(tx, tx.shares, &row)
		}
	}
}

// needs checks that every pool of a share can do something.
func (tx *Tx) needs(s *cairn.Share, capability cairn.Capability) error {
	for r := range tx.ReplicasOf(s.ID) {
		if pool := tx.Pool(r.Pool); !slices.Contains(pool.Capabilities, capability) {
			return cause(cairn.ErrNotSupported, "%s: pool %s cannot do %s", s.Ref(), tx.poolLabel(pool), capability)
		}
	}
	return nil
}

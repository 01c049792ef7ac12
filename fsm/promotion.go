package fsm

import (
	"slices"

	"github.com/cairn-storage/cairn"
)

// PromoteShare makes a standby the active replica, without loss: the active one is sealed, its last sync point is fetched,
// then the roles change.
type PromoteShare struct {
	Share   cairn.ShareID
	Replica cairn.ReplicaID
	Task    cairn.TaskID
}

func (*PromoteShare) op() Op           { return OpPromoteShare }
func (c *PromoteShare) target() string { return "share/" + string(c.Share) }

func (c *PromoteShare) apply(tx *Tx) (string, error) {
	if err := checkID(cairn.KindTask, c.Task); err != nil {
		return "", err
	}
	share, err := tx.idle(c.Share)
	if err != nil {
		return "", err
	}
	from, to := tx.Replica(share.Active), tx.Replica(c.Replica)
	if to == nil || to.Share != c.Share {
		return "", cause(cairn.ErrNotFound, "%s: has no replica %q", share.Ref(), c.Replica)
	}
	node := tx.Node(to.Node)
	switch {
	case to.ID == from.ID:
		return "", cause(cairn.ErrInvalid, "%s: is the active replica already", to.Ref())
	case to.Want.Presence != cairn.Present:
		return "", cause(cairn.ErrPrecondition, "%s: is being removed", to.Ref())
	case tx.Node(from.Node).State != cairn.NodeUp:
		return "", cause(cairn.ErrPrecondition, "%s: node %s, which has the active replica, is down; wait for it, or use --force and leave behind what was written since the last sync",
			share.Ref(), tx.Node(from.Node).Name)
	case node.State != cairn.NodeUp:
		return "", cause(cairn.ErrPrecondition, "%s: its node %s is down", to.Ref(), node.Name)
	case to.State != cairn.ReplicaInSync:
		return "", cause(cairn.ErrPrecondition, "%s: is %s; wait until it is in_sync", to.Ref(), to.State)
	}
	tx.startTask(share, &cairn.Task{ID: c.Task, Kind: cairn.TaskPromote, Replica: to.ID})
	tx.wantOf(from, func(w *cairn.ReplicaWant) { w.Sealed = true })
	tx.event("share.promoting", share.Project, share.Ref(), "share %s moves from node %s to node %s", share.Name, tx.Node(from.Node).Name, node.Name)
	return string(c.Task), nil
}

// promotes reports whether a promotion is running that makes the replica active, or has just done so.
func (tx *Tx) promotes(r *cairn.Replica) bool {
	task := tx.Task(r.Share)
	return task.Running() && task.Kind == cairn.TaskPromote && task.Replica == r.ID
}

// advancePromotion takes the next step of a planned promotion that the rows allow: the sealed active one has cut its last
// sync point, the standby has it, the new active one is served.
func (tx *Tx) advancePromotion(id cairn.ShareID) {
	share, task := tx.Share(id), tx.Task(id)
	if share == nil || !task.Running() || task.Kind != cairn.TaskPromote {
		return
	}
	from, to := tx.Replica(share.Active), tx.Replica(task.Replica)
	last := from.Have.Sealed
	switch {
	case from.ID == to.ID:
		if to.Want.Revert == "" && to.Settled() && to.Have.Presence == cairn.Present {
			tx.promoted(share, task, to)
		}
	case !from.Want.Sealed || !from.Settled() || last == "":
	case to.Want.SyncTo != last:
		tx.wantOf(to, func(w *cairn.ReplicaWant) { w.SyncTo = last })
	case to.Settled() && to.Have.Synced == last && tx.hasSnapshotsOf(to, from):
		tx.lead(share, to, cairn.Keep{Base: last})
	}
}

// hasSnapshotsOf reports whether a standby has every snapshot that the active one has or is about to cut. Those that the
// active one cannot cut are not waited for.
func (tx *Tx) hasSnapshotsOf(standby, active *cairn.Replica) bool {
	for i := range tx.InstancesOn(active.ID) {
		here := tx.Instance(i.Snapshot, standby.ID)
		if i.Want == cairn.Present && i.Fault.Healthy() && here != nil && here.Have != cairn.Present {
			return false
		}
	}
	return true
}

// promoted ends the promotion, and hands over the changes of rules that had to wait for that.
func (tx *Tx) promoted(share *cairn.Share, task *cairn.Task, to *cairn.Replica) {
	tx.endTask(task, cairn.TaskSucceeded, cairn.Fault{})
	if tx.handOver(share) {
		tx.want(share.ID, nil)
	}
	tx.event("share.promoted", share.Project, share.Ref(), "share %s is served by node %s", share.Name, tx.Node(to.Node).Name)
}

// callOff ends a promotion that does not come to its end: the active one may be written to again.
func (tx *Tx) callOff(task *cairn.Task, state cairn.TaskState, fault cairn.Fault) {
	share := tx.Share(task.Share)
	tx.endTask(task, state, fault)
	tx.handOver(share)
	tx.want(task.Share, func(w *cairn.ReplicaWant) { w.Sealed, w.SyncTo = false, "" })
	if state == cairn.TaskFailed {
		tx.event("share.promotion_failed", share.Project, share.Ref(), "promotion of share %s ended: %s", share.Name, fault.Message)
	}
}

// lead changes the roles: to becomes active from the sync point keep.Base on. The epoch rises for all replicas, so whatever
// the old active one still does is refused. Of a failover keep names a snapshot: the old active one puts aside as that
// what it has beyond the base. One that has not yet done so for an earlier takeover has had no writes since.
func (tx *Tx) lead(share *cairn.Share, to *cairn.Replica, keep cairn.Keep) {
	tx.leaveBehind(share, to)
	all := slices.Collect(tx.ReplicasOf(share.ID))
	epoch := uint64(0)
	for _, r := range all {
		epoch = max(epoch, r.Epoch)
	}
	for _, old := range all {
		row := *old
		row.Epoch, row.Generation = epoch+1, row.Generation+1
		row.Want.Sealed, row.Want.SyncTo = false, ""
		switch row.ID {
		case to.ID:
			row.Role, row.State = cairn.RoleActive, cairn.ReplicaActive
			row.Want.Revert = tx.headOf(share, to, keep.Base)
		case share.Active:
			row.Role, row.State, row.Want.Revert = cairn.RoleStandby, cairn.ReplicaOutOfSync, ""
			row.Want.Source, row.Want.SourceReplica, row.Want.Adopt = "", "", ""
			switch {
			case keep.Snapshot == "" && row.Want.Keep == (cairn.Keep{}) && tx.sound(&row):
				row.State = cairn.ReplicaInSync
			case keep.Snapshot != "" && row.Want.Keep == (cairn.Keep{}):
				row.Want.Keep = keep
			}
		}
		put(tx, tx.replicas, &row)
	}
	row := *share
	row.Active = to.ID
	row.Fault = tx.faultOf(&row, tx.Replica(to.ID))
	put(tx, tx.shares, &row)
	tx.settleSnapshots(&row)
}

// leaveBehind decides about the snapshots that the next active replica does not have. None is ever cut anew under the name
// of another point in time. One that was acknowledged stays where it is, as diverged; one that was being cut is given up,
// because some replica that cannot be asked may have it.
func (tx *Tx) leaveBehind(share *cairn.Share, to *cairn.Replica) {
	for _, snap := range slices.Collect(tx.SnapshotsOf(share.ID)) {
		here := tx.Instance(snap.ID, to.ID)
		switch {
		case here == nil || here.Want != cairn.Present || here.Have == cairn.Present || snap.Diverged:
		case snap.Status == cairn.StatusCreating:
			tx.discard(snap, cairn.Absent)
			tx.event("snapshot.failed", snap.Project, snap.Ref(), "snapshot %s of share %s was not finished before node %s took over; it is deleted",
				snap.Name, share.Name, tx.Node(to.Node).Name)
		case snap.Status == cairn.StatusAvailable:
			tx.diverge(snap)
			tx.event("snapshot.diverged", snap.Project, snap.Ref(), "snapshot %s of share %s is not on node %s, which takes over; it stays where it is",
				snap.Name, share.Name, tx.Node(to.Node).Name)
		}
	}
}

// diverge marks a snapshot that the active replica does not have: no other replica will get it any more. If all copies were
// lost before, the faults that say so stay.
func (tx *Tx) diverge(snap *cairn.Snapshot) {
	row := *snap
	row.Diverged = true
	put(tx, tx.snapshots, &row)
	all := slices.Collect(tx.InstancesOf(snap.ID))
	exists := slices.ContainsFunc(all, func(i *cairn.SnapshotInstance) bool { return i.Have == cairn.Present })
	for _, i := range all {
		if i.Have != cairn.Present && (exists || i.Fault.Healthy()) {
			remove(tx, tx.instances, instanceKey(i.Snapshot, i.Replica))
		}
	}
}

// headOf is what the data of a new active replica must be: the sync point, or what a running revert goes back to.
func (tx *Tx) headOf(share *cairn.Share, to *cairn.Replica, base cairn.SnapshotID) cairn.SnapshotID {
	task := tx.Task(share.ID)
	if !task.Running() || task.Kind != cairn.TaskRevert {
		return base
	}
	if i := tx.Instance(task.Snapshot, to.ID); i != nil && i.Have == cairn.Present {
		return task.Snapshot
	}
	tx.endTask(task, cairn.TaskFailed, cairn.Fault{Code: cairn.FaultMissing, At: tx.meta.At, Message: "the replica that took over does not have the snapshot"})
	tx.event("share.revert_failed", share.Project, share.Ref(), "share %s does not go back: the replica that took over does not have the snapshot", share.Name)
	return base
}

package fsm

import (
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
)

// MaxReplicas bounds the copies of a share.
const MaxReplicas = 8

// AddReplica gives a share another copy, which the active one feeds. Snapshots that exist travel along.
type AddReplica struct {
	Share   cairn.ShareID
	Replica Placement
}

// RemoveReplica takes a copy away that is not active. Without Force it is refused while the replica holds what no other one
// has. With Force the row goes at once if its node is down: the object is deleted when the node comes back as an orphan
// that an operator finds in its log.
type RemoveReplica struct {
	Replica cairn.ReplicaID
	Force   bool
}

// ResyncReplica has a standby look at once instead of at the end of its interval.
type ResyncReplica struct{ Replica cairn.ReplicaID }

// PromoteShare makes a standby the active replica, without loss: the active one is sealed, its last sync point is fetched,
// then the roles change.
type PromoteShare struct {
	Share   cairn.ShareID
	Replica cairn.ReplicaID
	Task    cairn.TaskID
}

// FailoverShares makes standbys active whose active one is on a node that is down, each by itself as Result.Each says. The
// leader has asked the candidates before; what it learned is in the command.
type FailoverShares struct{ Failovers []Failover }

// Failover is one share's.
type Failover struct {
	Share   cairn.ShareID
	Replica cairn.ReplicaID // becomes active
	// Snapshot is the newest sync point that it has, cut Window nanoseconds before the decision: what was written since is
	// left behind at the old active, which keeps it as Keep when it comes back.
	Snapshot cairn.SnapshotID
	Window   int64
	Keep     cairn.SnapshotID
	// Forced is an operator's word: the policy, the state of the replica and an active that is up do not matter.
	Forced bool
}

func (*AddReplica) op() Op           { return OpAddReplica }
func (c *AddReplica) target() string { return "share/" + string(c.Share) + "/replica" }

func (*RemoveReplica) op() Op           { return OpRemoveReplica }
func (c *RemoveReplica) target() string { return "replica/" + string(c.Replica) }

func (*ResyncReplica) op() Op           { return OpResyncReplica }
func (c *ResyncReplica) target() string { return "replica/" + string(c.Replica) }

func (*PromoteShare) op() Op           { return OpPromoteShare }
func (c *PromoteShare) target() string { return "share/" + string(c.Share) }

func (*FailoverShares) op() Op { return OpFailoverShares }
func (c *FailoverShares) target() string {
	if len(c.Failovers) == 1 {
		return "share/" + string(c.Failovers[0].Share)
	}
	return "shares"
}

func (c *AddReplica) apply(tx *Tx) (string, error) {
	if err := checkID(cairn.KindReplica, c.Replica.ID); err != nil {
		return "", err
	}
	share, err := tx.idle(c.Share)
	if err != nil {
		return "", err
	}
	copies := slices.Collect(tx.ReplicasOf(c.Share))
	switch {
	case tx.Type(share.Type).Replication == cairn.ReplicationNone:
		return "", cause(cairn.ErrNotSupported, "%s: type %s does not offer replicas", share.Ref(), share.Type)
	case len(copies) >= MaxReplicas:
		return "", cause(cairn.ErrPrecondition, "%s: has %d replicas already", share.Ref(), len(copies))
	}
	row := &cairn.Replica{
		Role: cairn.RoleStandby, State: cairn.ReplicaOutOfSync, Epoch: tx.Replica(share.Active).Epoch,
		Want: cairn.ReplicaWant{Presence: cairn.Present, Size: share.Size},
	}
	if err := tx.placeReplica(share, c.Replica, row); err != nil {
		return "", err
	}
	for snap := range tx.SnapshotsOf(c.Share) {
		if !snap.Diverged && snap.Status != cairn.StatusDeleting {
			put(tx, tx.instances, &cairn.SnapshotInstance{Snapshot: snap.ID, Replica: row.ID, Want: cairn.Present, Have: cairn.Absent})
		}
	}
	tx.event("replica.adding", share.Project, row.Ref(), "share %s gets a replica in pool %s", share.Name, tx.poolLabel(tx.Pool(row.Pool)))
	return string(row.ID), nil
}

func (c *RemoveReplica) apply(tx *Tx) (string, error) {
	row := tx.Replica(c.Replica)
	if row == nil {
		return "", missing(cairn.KindReplica, c.Replica)
	}
	share := tx.Share(row.Share)
	if task := tx.Task(share.ID); task.Running() && task.Kind == cairn.TaskPromote && task.Replica == c.Replica {
		return "", tx.busy(share, task)
	}
	switch {
	case share.Active == c.Replica:
		return "", cause(cairn.ErrPrecondition, "%s: is the active replica of %s; promote another one first, or delete the share", row.Ref(), share.Ref())
	case !c.Force && tx.holdsDiverged(row):
		return "", cause(cairn.ErrInUse, "%s: holds data of %s that no other replica has; delete its diverged snapshots first, or use --force", row.Ref(), share.Ref())
	}
	if tx.Node(row.Node).State == cairn.NodeDown && c.Force {
		tx.forget(share, row)
		return string(c.Replica), nil
	}
	if row.Want.Presence != cairn.Absent {
		for _, i := range slices.Collect(tx.InstancesOn(row.ID)) {
			wanted := *i
			wanted.Want = cairn.Absent
			put(tx, tx.instances, &wanted)
		}
		tx.wantOf(row, func(w *cairn.ReplicaWant) { w.Presence, w.Keep = cairn.Absent, cairn.Keep{} })
		tx.event("replica.removing", share.Project, row.Ref(), "share %s loses its replica in pool %s", share.Name, tx.poolLabel(tx.Pool(row.Pool)))
	}
	return string(c.Replica), nil
}

// holdsDiverged reports whether the replica has, or may have, what no other one has.
func (tx *Tx) holdsDiverged(r *cairn.Replica) bool {
	if r.Want.Keep != (cairn.Keep{}) {
		return true
	}
	for i := range tx.InstancesOn(r.ID) {
		if tx.Snapshot(i.Snapshot).Diverged {
			return true
		}
	}
	return false
}

// forget removes a standby's row; what its share's snapshots had to wait for may be over.
func (tx *Tx) forget(share *cairn.Share, row *cairn.Replica) {
	tx.dropReplica(share, row)
	tx.event("replica.removed", share.Project, row.Ref(), "share %s has no replica in pool %s any more", share.Name, row.Pool)
	tx.settleSnapshots(share)
}

func (c *ResyncReplica) apply(tx *Tx) (string, error) {
	row := tx.Replica(c.Replica)
	switch {
	case row == nil:
		return "", missing(cairn.KindReplica, c.Replica)
	case row.Role != cairn.RoleStandby:
		return "", cause(cairn.ErrPrecondition, "%s: is active; the others follow it", row.Ref())
	}
	tx.wantOf(row, nil)
	return string(c.Replica), nil
}

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
			tx.endTask(task, cairn.TaskSucceeded, cairn.Fault{})
			row := *share
			if tx.handOver(&row) {
				tx.wantOf(to, nil)
			}
			tx.event("share.promoted", share.Project, share.Ref(), "share %s is served by node %s", share.Name, tx.Node(to.Node).Name)
		}
	case !from.Want.Sealed || !from.Settled() || last == "":
	case to.Want.SyncTo != last:
		tx.wantOf(to, func(w *cairn.ReplicaWant) { w.SyncTo = last })
	case to.Settled() && to.Have.Synced == last:
		tx.lead(share, to, cairn.ReplicaInSync, cairn.Keep{Base: last})
	}
}

// callOff ends a promotion before the roles have changed: the active one may be written to again.
func (tx *Tx) callOff(task *cairn.Task, state cairn.TaskState, fault cairn.Fault) {
	share := tx.Share(task.Share)
	tx.endTask(task, state, fault)
	tx.handOver(share)
	tx.want(task.Share, func(w *cairn.ReplicaWant) { w.Sealed, w.SyncTo = false, "" })
}

// lead changes the roles: to becomes active from the sync point keep.Base on. The epoch rises for all replicas, so whatever
// the old active one still does is refused. It becomes a standby in the state was, and puts aside what it has beyond the
// base if keep names a snapshot for that.
func (tx *Tx) lead(share *cairn.Share, to *cairn.Replica, was cairn.ReplicaState, keep cairn.Keep) {
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
			row.Role, row.State, row.Want.Revert = cairn.RoleStandby, was, ""
			row.Want.Source, row.Want.SourceReplica, row.Want.Adopt = "", "", ""
			if keep.Snapshot != "" && row.Want.Keep == (cairn.Keep{}) {
				row.Want.Keep = keep
			}
		}
		put(tx, tx.replicas, &row)
	}
	row := *share
	row.Active = to.ID
	row.Fault = tx.faultOf(&row, tx.Replica(to.ID))
	put(tx, tx.shares, &row)
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
	return base
}

func (c *FailoverShares) apply(tx *Tx) (string, error) {
	for i := range c.Failovers {
		tx.each = append(tx.each, tx.attempt(func() error { return c.Failovers[i].apply(tx) }))
	}
	return c.target(), nil
}

func (f *Failover) apply(tx *Tx) error {
	share, to := tx.Share(f.Share), tx.Replica(f.Replica)
	switch {
	case share == nil:
		return missing(cairn.KindShare, f.Share)
	case to == nil || to.Share != f.Share:
		return cause(cairn.ErrNotFound, "%s: has no replica %q", share.Ref(), f.Replica)
	case share.Status != cairn.StatusAvailable:
		return cause(cairn.ErrPrecondition, "%s: is %s, not available", share.Ref(), share.Status)
	case f.Snapshot == "" || f.Keep == "":
		return cause(cairn.ErrInvalid, "%s: failover without a sync point to start from, or a name for what is left behind", share.Ref())
	}
	from := tx.Replica(share.Active)
	if err := f.allowed(tx, share, from, to); err != nil {
		return err
	}
	if task := tx.Task(share.ID); task.Running() && task.Kind == cairn.TaskPromote {
		tx.callOff(task, cairn.TaskFailed, cairn.Fault{Code: cairn.FaultNodeDown, At: tx.meta.At, Message: "the node of the active replica went down"})
	}
	if err := tx.dropUncut(share); err != nil {
		return err
	}
	tx.lead(tx.Share(f.Share), tx.Replica(f.Replica), cairn.ReplicaOutOfSync, cairn.Keep{Snapshot: f.Keep, Base: f.Snapshot})
	tx.event("share.failover", share.Project, share.Ref(), "share %s: node %s takes over from node %s; up to %s of writes stay behind and are kept there",
		share.Name, tx.Node(to.Node).Name, tx.Node(from.Node).Name, time.Duration(f.Window).Round(time.Millisecond))
	return nil
}

// dropUncut gives up the snapshots that nobody was told are there. The old active one may have cut them already: cut again
// by the new one, they would be two points in time under one name.
func (tx *Tx) dropUncut(share *cairn.Share) error {
	for _, snap := range slices.Collect(tx.SnapshotsOf(share.ID)) {
		if snap.Status != cairn.StatusCreating {
			continue
		}
		if err := tx.deleteSnapshot(snap); err != nil {
			return err
		}
		tx.event("snapshot.lost", snap.Project, snap.Ref(), "snapshot %s of share %s was being cut when its node went down; cut another one", snap.Name, share.Name)
	}
	return nil
}

// allowed checks the fence and the policy. An active one whose node is up could still write: it is never taken over from but
// on an operator's word.
func (f *Failover) allowed(tx *Tx, share *cairn.Share, from, to *cairn.Replica) error {
	t, node := tx.Type(share.Type), tx.Node(to.Node)
	switch {
	case to.ID == from.ID:
		return cause(cairn.ErrInvalid, "%s: is the active replica already", to.Ref())
	case to.Have.Presence != cairn.Present || to.Want.Presence != cairn.Present:
		return cause(cairn.ErrPrecondition, "%s: has never been complete", to.Ref())
	case node.State != cairn.NodeUp:
		return cause(cairn.ErrPrecondition, "%s: its node %s is down", to.Ref(), node.Name)
	case f.Forced:
		return nil
	case tx.Node(from.Node).State != cairn.NodeDown:
		return cause(cairn.ErrStale, "%s: node %s, which has the active replica, is %s", share.Ref(), tx.Node(from.Node).Name, tx.Node(from.Node).State)
	case t.Failover != cairn.FailoverAuto:
		return cause(cairn.ErrPrecondition, "%s: type %s leaves failover to an operator", share.Ref(), t.Name)
	case to.State != cairn.ReplicaInSync:
		return cause(cairn.ErrPrecondition, "%s: is %s", to.Ref(), to.State)
	case t.MaxRPO > 0 && f.Window > t.MaxRPO:
		return cause(cairn.ErrPrecondition, "%s: %s of writes would be lost, and type %s allows %s", share.Ref(),
			time.Duration(f.Window).Round(time.Millisecond), t.Name, time.Duration(t.MaxRPO))
	}
	return nil
}

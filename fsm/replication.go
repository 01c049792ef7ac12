package fsm

import (
	"slices"

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

func (*AddReplica) op() Op           { return OpAddReplica }
func (c *AddReplica) target() string { return "share/" + string(c.Share) + "/replica" }

func (*RemoveReplica) op() Op           { return OpRemoveReplica }
func (c *RemoveReplica) target() string { return "replica/" + string(c.Replica) }

func (*ResyncReplica) op() Op           { return OpResyncReplica }
func (c *ResyncReplica) target() string { return "replica/" + string(c.Replica) }

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
	share, away := tx.Share(row.Share), tx.Node(row.Node).State == cairn.NodeDown
	switch clone := tx.cloningFrom(row); {
	case share.Active == c.Replica:
		return "", cause(cairn.ErrPrecondition, "%s: is the active replica of %s; promote another one first, or delete the share", row.Ref(), share.Ref())
	case tx.promotes(row):
		return "", tx.busy(share, tx.Task(share.ID))
	case c.Force && away:
		tx.forget(share, row)
		return string(c.Replica), nil
	case row.Want.Presence != cairn.Present:
		return string(c.Replica), nil
	case !c.Force && tx.holdsDiverged(row):
		return "", cause(cairn.ErrInUse, "%s: holds data of %s that no other replica has; delete its diverged snapshots first, or use --force", row.Ref(), share.Ref())
	case clone != nil:
		return "", cause(cairn.ErrInUse, "%s: %s is being created from a snapshot on it", row.Ref(), clone.Ref())
	}
	tx.retire(share, row)
	return string(c.Replica), nil
}

// cloningFrom returns a share that is being created from a snapshot on the replica, or nil.
func (tx *Tx) cloningFrom(r *cairn.Replica) *cairn.Share {
	for i := range tx.InstancesOn(r.ID) {
		for clone := range tx.SharesFrom(i.Snapshot) {
			if clone.Status == cairn.StatusCreating && tx.Replica(clone.Active).Want.SourceReplica == r.ID {
				return clone
			}
		}
	}
	return nil
}

// holdsDiverged reports whether the replica has, or may have, what no other one has.
func (tx *Tx) holdsDiverged(r *cairn.Replica) bool {
	if r.Want.Keep != (cairn.Keep{}) {
		return true
	}
	for i := range tx.InstancesOn(r.ID) {
		if tx.Snapshot(i.Snapshot).Diverged && tx.onlyCopy(i) {
			return true
		}
	}
	return false
}

// onlyCopy reports whether no other replica has, or is to have, the snapshot.
func (tx *Tx) onlyCopy(of *cairn.SnapshotInstance) bool {
	for i := range tx.InstancesOf(of.Snapshot) {
		if i.Replica != of.Replica && i.Want == cairn.Present {
			return false
		}
	}
	return true
}

// retire wants a standby away: it counts for nothing from now on.
func (tx *Tx) retire(share *cairn.Share, old *cairn.Replica) {
	for _, i := range slices.Collect(tx.InstancesOn(old.ID)) {
		if snap := tx.Snapshot(i.Snapshot); snap.Status == cairn.StatusAvailable && tx.onlyCopy(i) {
			tx.discard(snap, cairn.Absent)
			tx.event("snapshot.deleting", snap.Project, snap.Ref(), "snapshot %s is being deleted: no other replica has it", snap.Name)
		}
		wanted := *i
		wanted.Want = cairn.Absent
		put(tx, tx.instances, &wanted)
	}
	row := *old
	row.State = cairn.ReplicaOutOfSync
	row.Want.Presence, row.Want.Keep = cairn.Absent, cairn.Keep{}
	row.Generation++
	put(tx, tx.replicas, &row)
	tx.event("replica.removing", share.Project, row.Ref(), "share %s loses its replica in pool %s", share.Name, tx.poolLabel(tx.Pool(row.Pool)))
	tx.settleSnapshots(share)
	tx.settleResize(share.ID)
}

// forget removes a standby's row.
func (tx *Tx) forget(share *cairn.Share, row *cairn.Replica) {
	tx.dropReplica(share, row)
	tx.event("replica.removed", share.Project, row.Ref(), "share %s has no replica in pool %s any more", share.Name, tx.poolLabel(tx.Pool(row.Pool)))
	tx.without(share)
}

// without settles what had to wait for a replica that is gone.
func (tx *Tx) without(share *cairn.Share) {
	if tx.bury(share) {
		return
	}
	tx.settleSnapshots(share)
	tx.settleResize(share.ID)
}

// bury removes a share that is being deleted once nothing of it is left.
func (tx *Tx) bury(share *cairn.Share) bool {
	if share.Status != cairn.StatusDeleting {
		return false
	}
	for r := range tx.ReplicasOf(share.ID) {
		if r.Have.Presence == cairn.Present || !r.Settled() {
			return false
		}
	}
	active := tx.Replica(share.Active)
	tx.dropShare(share)
	if active.Have.Presence == cairn.Released {
		tx.event("share.unmanaged", share.Project, share.Ref(), "share %s is not managed any more; its data stays as %q", share.Name, active.Want.Release)
	} else {
		tx.event("share.deleted", share.Project, share.Ref(), "share %s is gone", share.Name)
	}
	return true
}

func (c *ResyncReplica) apply(tx *Tx) (string, error) {
	row := tx.Replica(c.Replica)
	switch {
	case row == nil:
		return "", missing(cairn.KindReplica, c.Replica)
	case row.Role != cairn.RoleStandby:
		return "", cause(cairn.ErrPrecondition, "%s: is active; the others follow it", row.Ref())
	case row.Want.Presence != cairn.Present:
		return "", cause(cairn.ErrPrecondition, "%s: is being removed", row.Ref())
	}
	tx.wantOf(row, nil)
	return string(c.Replica), nil
}

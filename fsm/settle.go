package fsm

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
)

// settleInstance takes over what a report says of one snapshot. A snapshot that is gone meanwhile is nothing to report on.
func (r *report) settleInstance(have *SnapshotHave) error {
	old, snap := r.Instance(have.Snapshot, r.replica.ID), r.Snapshot(have.Snapshot)
	if old == nil || snap == nil {
		return nil
	}
	if old.Want != cairn.Present && have.Have == cairn.Absent && have.Fault.Healthy() {
		remove(r.Tx, r.instances, instanceKey(old.Snapshot, old.Replica))
		if first(r.InstancesOf(snap.ID)) == nil {
			object := r.ObjectOf(snap)
			r.dropSnapshot(snap)
			if old.Want == cairn.Released {
				r.event("snapshot.unmanaged", snap.Project, snap.Ref(), "snapshot %s of share %s is not managed any more; its data stays as %q", snap.Name, r.share.Name, object)
				return nil
			}
			r.event("snapshot.deleted", snap.Project, snap.Ref(), "snapshot %s of share %s is gone", snap.Name, r.share.Name)
			return nil
		}
		return r.settleSnapshot(&r.share, snap)
	}
	row := *old
	row.Have, row.Locations, row.Fault = have.Have, have.Locations, r.since(old.Fault, have.Fault)
	if snap.Status == cairn.StatusAvailable && row.Have != cairn.Present && row.Fault.Healthy() && (snap.Diverged || r.share.Active == r.replica.ID) {
		row.Fault = r.since(old.Fault, cairn.Fault{Code: cairn.FaultMissing, Message: "snapshot is not on its replica any more"})
	}
	put(r.Tx, r.instances, &row)
	return r.settleSnapshot(&r.share, snap)
}

// settleSnapshots settles all snapshots of a share, after one of its replicas has gone or stopped to count.
func (tx *Tx) settleSnapshots(share *cairn.Share) {
	for _, snap := range slices.Collect(tx.SnapshotsOf(share.ID)) {
		if first(tx.InstancesOf(snap.ID)) == nil {
			tx.dropSnapshot(snap)
			if snap.Status == cairn.StatusDeleting {
				tx.event("snapshot.deleted", snap.Project, snap.Ref(), "snapshot %s of share %s is gone", snap.Name, share.Name)
			} else {
				tx.event("snapshot.lost", snap.Project, snap.Ref(), "snapshot %s of share %s is lost: no replica is left that has it", snap.Name, share.Name)
			}
			continue
		}
		if err := tx.settleSnapshot(share, snap); err != nil {
			panic(fmt.Errorf("fsm: %w", err)) // creating becomes available: legal at all times
		}
	}
}

// settleState derives the state of a standby from what its node says. It counts as in sync only with every snapshot that
// anybody was told is there.
func (tx *Tx) settleState(id cairn.ReplicaID, inSync bool) {
	old, state := tx.Replica(id), cairn.ReplicaOutOfSync
	if old == nil || old.Role != cairn.RoleStandby {
		return
	}
	if inSync && tx.sound(old) {
		state = cairn.ReplicaInSync
	}
	if state == old.State {
		return
	}
	share := tx.Share(old.Share)
	tx.event("replica."+string(state), share.Project, old.Ref(), "replica of share %s in pool %s is %s", share.Name, tx.poolLabel(tx.Pool(old.Pool)), state)
	tx.stand(share, old, state)
}

// stand moves a standby to a state, with what depends on who is in sync.
func (tx *Tx) stand(share *cairn.Share, old *cairn.Replica, state cairn.ReplicaState) {
	row := *old
	row.State = state
	put(tx, tx.replicas, &row)
	tx.settleSnapshots(share)
}

// sound reports whether a standby that is up to date may count as in sync: it is there and stays, it is reachable, and it has
// every available snapshot that the active one feeds it with.
func (tx *Tx) sound(r *cairn.Replica) bool {
	if r.Want.Presence != cairn.Present || r.Have.Presence != cairn.Present || !r.Have.Fault.Healthy() || tx.Node(r.Node).State != cairn.NodeUp {
		return false
	}
	for i := range tx.InstancesOn(r.ID) {
		snap := tx.Snapshot(i.Snapshot)
		if i.Want == cairn.Present && i.Have != cairn.Present && snap.Status == cairn.StatusAvailable && !snap.Diverged {
			return false
		}
	}
	return true
}

// counts reports whether a snapshot's copy on a replica decides about its status (Manila's aggregate_status: those that are
// out of sync do not). Of a diverged one there is no other copy.
func (tx *Tx) counts(snap *cairn.Snapshot, i *cairn.SnapshotInstance) bool {
	return snap.Diverged || tx.Replica(i.Replica).State != cairn.ReplicaOutOfSync
}

// settleSnapshot derives status and fault of a snapshot from its instances.
func (tx *Tx) settleSnapshot(share *cairn.Share, old *cairn.Snapshot) error {
	row, fault, complete := *old, cairn.Fault{}, true
	for i := range tx.InstancesOf(old.ID) {
		if !tx.counts(old, i) {
			continue
		}
		complete = complete && i.Have == cairn.Present && i.Fault.Healthy()
		if fault.Healthy() {
			fault = i.Fault
		}
	}
	if row.Status == cairn.StatusCreating && complete {
		if err := become(row.Ref(), &row.Status, cairn.StatusAvailable); err != nil {
			return err
		}
		tx.event("snapshot.created", row.Project, row.Ref(), "snapshot %s of share %s is available", row.Name, share.Name)
	}
	row.Fault = tx.since(old.Fault, fault)
	put(tx, tx.snapshots, &row)
	switch {
	case row.Fault == old.Fault:
	case row.Fault.Healthy():
		tx.event("snapshot.healthy", row.Project, row.Ref(), "snapshot %s of share %s is healthy again", row.Name, share.Name)
	default:
		tx.event("snapshot.faulty", row.Project, row.Ref(), "snapshot %s of share %s: %s", row.Name, share.Name, row.Fault.Message)
	}
	return nil
}

// settleRules settles the changes of access rules that the node has answered for: the report is about the newest generation, so it
// is about all of them. A report that says that the replica is not served says nothing of rules, and neither does one of
// before it is served again.
func (r *report) settleRules() {
	if !r.served() || r.wants {
		return
	}
	for _, rule := range slices.Collect(r.allRulesOf(r.share.ID)) {
		switch to := (accessTo{&r.share, r.Snapshot(rule.Snapshot)}); {
		case r.server(to) != r.replica.ID:
		case r.c.RuleFault.Healthy():
			r.enforced(to, rule)
		default:
			r.notEnforced(to, rule)
		}
	}
}

func (r *report) enforced(to accessTo, rule *cairn.AccessRule) {
	row := *rule
	switch rule.State {
	case cairn.RuleDenying:
		remove(r.Tx, r.rules, string(rule.ID))
		r.accessEvent("access.removed", to, "%s %s has no access to %s any more", row.Kind, row.Who, to.ref())
	case cairn.RuleApplying, cairn.RuleUpdating, cairn.RuleError:
		row.State = cairn.RuleActive
		put(r.Tx, r.rules, &row)
		r.accessEvent("access.applied", to, "%s %s has %s on %s", row.Kind, row.Who, row.Level, to.ref())
	}
}

// notEnforced marks the rules in flight. One that is being denied stays so: as an error it would count as granted.
func (r *report) notEnforced(to accessTo, rule *cairn.AccessRule) {
	switch rule.State {
	case cairn.RuleApplying, cairn.RuleUpdating:
		row := *rule
		row.State = cairn.RuleError
		put(r.Tx, r.rules, &row)
		r.accessEvent("access.error", to, "%s %s on %s: %s", row.Kind, row.Who, to.ref(), brief(r.c.RuleFault.Message))
	}
}

package fsm

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
)

// CreateSnapshot cuts a point in time of a share. Project, Size, Status, Fault, Order and CreatedAt of Snapshot are set here.
// A name that is taken is refused even for an equal request: another call means another point in time.
type CreateSnapshot struct{ Snapshot cairn.Snapshot }

// DeleteSnapshot removes a snapshot. Of one that is being deleted it succeeds.
type DeleteSnapshot struct{ ID cairn.SnapshotID }

func (*CreateSnapshot) op() Op { return OpCreateSnapshot }
func (c *CreateSnapshot) target() string {
	return "share/" + string(c.Snapshot.Share) + "/snapshot/" + c.Snapshot.Name
}

func (*DeleteSnapshot) op() Op           { return OpDeleteSnapshot }
func (c *DeleteSnapshot) target() string { return "snapshot/" + string(c.ID) }

func (c *CreateSnapshot) apply(tx *Tx) (string, error) {
	row := c.Snapshot
	if err := checkSnapshot(&row); err != nil {
		return "", err
	}
	share, err := tx.mayHave(&row)
	if err != nil {
		return "", err
	}
	if err := tx.needs(share, cairn.CapSnapshot); err != nil {
		return "", err
	}
	if err := tx.addSnapshot(share, &row); err != nil {
		return "", err
	}
	tx.event("snapshot.creating", row.Project, row.Ref(), "snapshot %s of share %s is being cut", row.Name, share.Name)
	return string(row.ID), nil
}

// addSnapshot writes the row of a new snapshot, and wants it on every replica.
func (tx *Tx) addSnapshot(share *cairn.Share, row *cairn.Snapshot) error {
	if err := tx.charge(share.Project, cairn.Limits{Snapshots: 1, SnapshotBytes: share.Size}); err != nil {
		return err
	}
	row.Project, row.Size, row.Status, row.Fault, row.CreatedAt = share.Project, share.Size, "", cairn.Fault{}, tx.meta.At
	row.Order, row.Diverged = tx.nextOrder(share.ID), false
	if err := become(row.Ref(), &row.Status, cairn.StatusCreating); err != nil {
		return err
	}
	put(tx, tx.snapshots, row)
	for r := range tx.ReplicasOf(share.ID) {
		if r.Want.Presence != cairn.Present {
			continue
		}
		put(tx, tx.instances, &cairn.SnapshotInstance{Snapshot: row.ID, Replica: r.ID, Want: cairn.Present, Have: cairn.Absent})
	}
	tx.want(share.ID, nil)
	return nil
}

// mayHave returns the share of a new snapshot, if it can have one with that identifier and name.
func (tx *Tx) mayHave(row *cairn.Snapshot) (*cairn.Share, error) {
	share, err := tx.idle(row.Share)
	switch {
	case err != nil:
		return nil, err
	case !tx.Type(share.Type).Snapshots:
		return nil, cause(cairn.ErrNotSupported, "%s: type %s does not offer snapshots", share.Ref(), share.Type)
	case tx.Snapshot(row.ID) != nil:
		return nil, cause(cairn.ErrExists, "snapshot %s: that identifier is taken", row.ID)
	case tx.SnapshotByName(share.ID, row.Name) != nil:
		return nil, cause(cairn.ErrExists, "%s: has a snapshot %s", share.Ref(), row.Name)
	}
	return share, nil
}

func checkSnapshot(s *cairn.Snapshot) error {
	if err := checkID(cairn.KindSnapshot, s.ID); err != nil {
		return err
	}
	if err := cairn.CheckName("snapshot", s.Name); err != nil {
		return err
	}
	if err := checkText("description", s.Description, maxDescription, true); err != nil {
		return err
	}
	return checkMetadata(s.Metadata)
}

// nextOrder numbers a new snapshot of the share.
func (tx *Tx) nextOrder(id cairn.ShareID) uint64 {
	order := uint64(1)
	for old := range tx.SnapshotsOf(id) {
		order = old.Order + 1
	}
	return order
}

// newestSnapshot returns the share's snapshot with the highest Order, or nil. What an earlier active left does not count.
func (tx *Tx) newestSnapshot(id cairn.ShareID) (newest *cairn.Snapshot) {
	for s := range tx.SnapshotsOf(id) {
		if !s.Diverged {
			newest = s
		}
	}
	return newest
}

func (c *DeleteSnapshot) apply(tx *Tx) (string, error) {
	old := tx.Snapshot(c.ID)
	switch {
	case old == nil:
		return "", missing(cairn.KindSnapshot, c.ID)
	case tx.isReleased(old):
		return "", cause(cairn.ErrBusy, "%s: is being let go of", old.Ref())
	case old.Status == cairn.StatusDeleting:
		return string(c.ID), nil
	}
	if err := tx.unused(old); err != nil {
		return "", err
	}
	tx.discard(old, cairn.Absent)
	tx.want(old.Share, nil)
	tx.event("snapshot.deleting", old.Project, old.Ref(), "snapshot %s is being deleted", old.Name)
	return string(c.ID), nil
}

// unused refuses to take a snapshot away that something under way needs.
func (tx *Tx) unused(old *cairn.Snapshot) error {
	for clone := range tx.SharesFrom(old.ID) {
		if clone.Status == cairn.StatusCreating {
			return cause(cairn.ErrInUse, "%s: %s is being created from it", old.Ref(), clone.Ref())
		}
	}
	if task := tx.Task(old.Share); task.Running() && task.Snapshot == old.ID {
		return cause(cairn.ErrInUse, "%s: %s is being reverted to it", old.Ref(), tx.Share(old.Share).Ref())
	}
	return nil
}

// discard wants a snapshot away from all replicas: absent, or released. The caller raises their generation.
func (tx *Tx) discard(old *cairn.Snapshot, want cairn.Presence) {
	row := *old
	if err := become(row.Ref(), &row.Status, cairn.StatusDeleting); err != nil {
		panic(fmt.Errorf("fsm: %w", err)) // legal from both other states
	}
	put(tx, tx.snapshots, &row)
	for _, i := range slices.Collect(tx.InstancesOf(row.ID)) {
		wanted := *i
		wanted.Want = want
		put(tx, tx.instances, &wanted)
	}
}

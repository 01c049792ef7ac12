package fsm

import (
	"slices"

	"github.com/cairn-storage/cairn"
)

// ManageSnapshot makes a snapshot that somebody else has cut of a share's data, called Object on the pool, a snapshot of the
// share. The fields of Snapshot that CreateSnapshot sets are set here. Its Order says when it came, not how old it is.
type ManageSnapshot struct {
	Snapshot cairn.Snapshot
	Object   string
}

// UnmanageSnapshot forgets a snapshot and leaves it on the pool without Cairn's mark: under the name that it was managed from,
// or under its own.
type UnmanageSnapshot struct{ ID cairn.SnapshotID }

func (*ManageSnapshot) op() Op { return OpManageSnapshot }
func (c *ManageSnapshot) target() string {
	return "share/" + string(c.Snapshot.Share) + "/snapshot/" + c.Snapshot.Name + " from " + c.Object
}

func (*UnmanageSnapshot) op() Op           { return OpUnmanageSnapshot }
func (c *UnmanageSnapshot) target() string { return "snapshot/" + string(c.ID) }

func (c *ManageSnapshot) apply(tx *Tx) (string, error) {
	row := c.Snapshot
	if err := checkSnapshot(&row); err != nil {
		return "", err
	}
	if err := cairn.CheckObjectName("object", c.Object); err != nil {
		return "", err
	}
	share, err := tx.mayHave(&row)
	if err != nil {
		return "", err
	}
	if err := tx.adoptsSnapshots(share); err != nil {
		return "", err
	}
	for other := range tx.SnapshotsOf(share.ID) {
		if tx.SnapshotOrigin(other.ID) == c.Object && other.Status == cairn.StatusCreating {
			return "", cause(cairn.ErrExists, "%s: is about to become %q", other.Ref(), c.Object)
		}
	}
	if err := tx.addSnapshot(share, &row); err != nil {
		return "", err
	}
	put(tx, tx.origins, &cairn.SnapshotOrigin{Snapshot: row.ID, Object: c.Object})
	tx.event("snapshot.managing", row.Project, row.Ref(), "snapshot %s of share %s takes over %q", row.Name, share.Name, c.Object)
	return string(row.ID), nil
}

func (c *UnmanageSnapshot) apply(tx *Tx) (string, error) {
	old := tx.Snapshot(c.ID)
	switch {
	case old == nil:
		return "", missing(cairn.KindSnapshot, c.ID)
	case tx.isReleased(old):
		return string(c.ID), nil
	case old.Status != cairn.StatusAvailable:
		return "", cause(cairn.ErrPrecondition, "%s: is %s, not available", old.Ref(), old.Status)
	case old.Diverged:
		return "", cause(cairn.ErrNotSupported, "%s: holds data that no other replica has, and cannot be let go of", old.Ref())
	}
	share, err := tx.idle(old.Share)
	if err != nil {
		return "", err
	}
	if err := tx.adoptsSnapshots(share); err != nil {
		return "", err
	}
	if err := tx.unused(old); err != nil {
		return "", err
	}
	tx.discard(old, cairn.Released)
	tx.want(old.Share, nil)
	tx.event("snapshot.unmanaging", old.Project, old.Ref(), "snapshot %s of share %s is let go of and stays on the pool as %q", old.Name, share.Name, tx.ObjectOf(old))
	return string(c.ID), nil
}

// adoptsSnapshots refuses a share whose snapshots cannot come under management, or leave it. The snapshots of a replicated one
// travel with streams, which bring nothing that is older than what was sent last.
func (tx *Tx) adoptsSnapshots(share *cairn.Share) error {
	replicas := 0
	for r := range tx.ReplicasOf(share.ID) {
		replicas++
		if pool := tx.Pool(r.Pool); !slices.Contains(pool.Capabilities, cairn.CapAdoptSnapshot) {
			return cause(cairn.ErrNotSupported, "%s: pool %s cannot adopt snapshots", share.Ref(), tx.poolLabel(pool))
		}
	}
	if replicas > 1 {
		return cause(cairn.ErrNotSupported, "%s: has %d replicas; snapshots are adopted and let go of with one", share.Ref(), replicas)
	}
	return nil
}

// isReleased reports whether a snapshot is being let go of.
func (tx *Tx) isReleased(s *cairn.Snapshot) bool {
	i := first(tx.InstancesOf(s.ID))
	return i != nil && i.Want == cairn.Released
}

// ObjectOf is what a snapshot is called on its pool when it is let go of.
func (v *View) ObjectOf(s *cairn.Snapshot) string {
	if origin := v.SnapshotOrigin(s.ID); origin != "" {
		return origin
	}
	return s.Name
}

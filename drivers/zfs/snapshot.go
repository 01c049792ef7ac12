package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// snapshotMark is the property by which a snapshot is ours. It is not one of those that datasets have, because snapshots
// inherit those.
const snapshotMark = "cairn:snapshot=on"

// CreateSnapshot cuts a point in time with one command.
func (p *Pool) CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (drivers.SnapshotObject, error) {
	return call(ctx, p, id, "create snapshot", func(o *op) (drivers.SnapshotObject, error) {
		if err := cairn.CheckName("snapshot", string(snap)); err != nil {
			return drivers.SnapshotObject{}, err
		}
		f, err := o.lookReady(epoch)
		if err != nil {
			return drivers.SnapshotObject{}, err
		}
		err = f.checkSnapshot(snap)
		if errors.Is(err, cairn.ErrNotFound) {
			if err = o.zfs("snapshot", "-o", snapshotMark, f.at+"@"+string(snap)); err == nil {
				f, err = o.lookAt(f.at)
			}
		}
		if err != nil {
			return drivers.SnapshotObject{}, err
		}
		object, err := o.object(f)
		at := slices.IndexFunc(object.Snapshots, func(s drivers.SnapshotObject) bool { return s.ID == snap })
		if err != nil || at < 0 {
			return drivers.SnapshotObject{}, errors.Join(err, fmt.Errorf("snapshot %s: is gone again: %w", snap, cairn.ErrPrecondition))
		}
		return object.Snapshots[at], nil
	})
}

// CreateGroupSnapshot cuts all snapshots with one command, which the kernel puts into one transaction group.
func (p *Pool) CreateGroupSnapshot(ctx context.Context, cuts []drivers.Cut) error {
	cuts = slices.Clone(cuts)
	slices.SortFunc(cuts, func(a, b drivers.Cut) int { return strings.Compare(string(a.Replica), string(b.Replica)) })
	for i, cut := range cuts {
		if err := cairn.CheckName("snapshot", string(cut.Snapshot)); err != nil {
			return fmt.Errorf("group snapshot: %w", err)
		}
		if i > 0 && cut.Replica == cuts[i-1].Replica {
			return fmt.Errorf("group snapshot: replica %s is in it twice: %w", cut.Replica, cairn.ErrInvalid)
		}
	}
	return p.cutAll(ctx, cuts, nil)
}

// cutAll takes the locks of the replicas in order, then cuts.
func (p *Pool) cutAll(ctx context.Context, cuts []drivers.Cut, ops []*op) error {
	if len(ops) < len(cuts) {
		return change(ctx, p, cuts[len(ops)].Replica, "group snapshot", func(o *op) error {
			return p.cutAll(ctx, cuts, append(ops, o))
		})
	}
	var missing []string
	for i, o := range ops {
		f, err := o.lookReady(cuts[i].Epoch)
		if err != nil {
			return fmt.Errorf("replica %s: %w", o.id, err)
		}
		switch err := f.checkSnapshot(cuts[i].Snapshot); {
		case errors.Is(err, cairn.ErrNotFound):
			missing = append(missing, f.at+"@"+string(cuts[i].Snapshot))
		case err != nil:
			return fmt.Errorf("replica %s: %w", o.id, err)
		}
	}
	switch len(missing) {
	case 0:
		return nil
	case len(cuts):
		return ops[0].zfs(append([]string{"snapshot", "-o", snapshotMark}, missing...)...)
	}
	return fmt.Errorf("group snapshot: %d of %d snapshots are there, %s is not: %w", len(cuts)-len(missing), len(cuts), missing[0], cairn.ErrExists)
}

// DeleteSnapshot removes one snapshot by its exact name. What depends on it, a clone or a send, makes it cairn.ErrInUse.
func (p *Pool) DeleteSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return change(ctx, p, id, "delete snapshot", func(o *op) error {
		if err := cairn.CheckName("snapshot", string(snap)); err != nil {
			return err
		}
		f, err := o.look()
		if errors.Is(err, cairn.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := o.admit(&f, epoch); err != nil {
			return err
		}
		if s, ok := f.foster(snap); ok && s.row["cairn:snapshot"] == "" {
			return o.giveSnapshotBack(s) // somebody else's, or so again
		}
		switch err := f.checkSnapshot(snap); {
		case errors.Is(err, cairn.ErrNotFound):
			return o.pruneBookmarks(f)
		case err != nil:
			return err
		}
		return o.removeSnapshot(f, snap)
	})
}

// removeSnapshot destroys a snapshot. If nothing but newer snapshots that a revert has put aside depends on it, it goes with
// the last of these.
func (o *op) removeSnapshot(f found, snap cairn.SnapshotID) error {
	r := f.snapshot(snap)
	destroy := []string{"destroy", r["name"]}
	if clones := r["clones"]; clones != "" {
		destroy = []string{"destroy", "-d", r["name"]}
		for clone := range strings.SplitSeq(clones, ",") {
			if f.besideAt(clone) == nil && clone != f.at {
				return fmt.Errorf("snapshot %s: the clone %s depends on it: %w", snap, clone, cairn.ErrInUse)
			}
		}
	}
	if r.number("userrefs") > 0 {
		if err := o.releaseStaleHold(r["name"]); err != nil {
			return err
		}
	}
	if err := o.zfs(destroy...); err != nil {
		return err
	}
	f.snapshots = slices.DeleteFunc(f.snapshots, func(s row) bool { return s["name"] == r["name"] })
	if len(f.beside) > 0 {
		if err := o.settleAgain(&f, f.at); err != nil {
			return err
		}
	}
	return o.pruneBookmarks(f)
}

// bookmarksKept is how many snapshots that were sent and deleted can still be the base of a stream. A receiver that is
// further behind needs a full one.
const bookmarksKept = 64

// pruneBookmarks removes the oldest bookmarks of snapshots that are gone.
func (o *op) pruneBookmarks(f found) error {
	var bare []string
	for name := range f.bookmarks {
		if f.named(cairn.SnapshotID(name)) == nil {
			bare = append(bare, name)
		}
	}
	if len(bare) <= bookmarksKept {
		return nil
	}
	slices.SortFunc(bare, func(a, b string) int { return int(f.bookmarks[a] - f.bookmarks[b]) })
	for _, name := range bare[:len(bare)-bookmarksKept] {
		if err := o.zfs("destroy", f.at+"#"+name); err != nil {
			return err
		}
	}
	return nil
}

// Revert rolls the dataset back to its newest snapshot, and gets to an older one, or one that lies aside, without destroying
// what is newer: see aside.go. Bookmarks of newer snapshots that are gone name a past that did not happen, and go.
func (p *Pool) Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return change(ctx, p, id, "revert", func(o *op) error {
		f, err := o.lookReady(epoch)
		if err != nil {
			return err
		}
		if err := f.checkSnapshot(snap); err != nil {
			return err
		}
		r := f.snapshot(snap)
		if f.dataset(r)["name"] != f.at || len(f.newer(r)) > 0 {
			return o.turn(f, r)
		}
		for name, born := range f.bookmarks {
			if born > r.number("createtxg") {
				if err := o.zfs("destroy", f.at+"#"+name); err != nil {
					return err
				}
			}
		}
		if err := o.zfs("rollback", r["name"]); err != nil {
			return err
		}
		return o.zfs("set", "cairn:reverted="+string(snap), f.at)
	})
}

// Clone makes a replica that shares its blocks with a snapshot, with one command. The snapshot cannot be deleted while the
// clone is there.
func (p *Pool) Clone(ctx context.Context, spec drivers.CreateSpec, source cairn.ReplicaID, snap cairn.SnapshotID) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "clone", func(o *op) (drivers.Object, error) {
		w, err := o.wishes(spec)
		if err != nil {
			return drivers.Object{}, err
		}
		return o.make(spec, wanted{source: snap}, func() error {
			origin := &op{Pool: p, ctx: ctx, id: source}
			from, err := origin.cloneable(snap, spec.Size)
			if err != nil {
				return fmt.Errorf("source replica %s: %w", source, err)
			}
			if err := w.checkEncrypted(from.row); err != nil {
				return err
			}
			args := append([]string{"clone", "-o", "cairn:source=" + string(snap)}, w.inherited(from)...)
			return o.create(wishes{}, append(args, mark(spec, stateReady)...), from.snapshot(snap)["name"], o.at(spec.ID))
		})
	})
}

// cloneable makes sure that the snapshot to clone is there and fits.
func (o *op) cloneable(snap cairn.SnapshotID, size int64) (found, error) {
	if err := cairn.CheckName("replica", string(o.id)); err != nil {
		return found{}, err
	}
	f, err := o.look()
	if err != nil {
		return found{}, err
	}
	if err := f.checkSnapshot(snap); err != nil {
		return found{}, err
	}
	return f, checkFits(f.snapshot(snap), size)
}

// inherited are the options of a clone: its key is that of its origin.
func (w wishes) inherited(from found) []string {
	args := slices.Clone(w.limits)
	if key := from.row["cairn:key"]; key != "" {
		args = append(args, "-o", "cairn:key="+key)
	}
	return append(args, "-o", "readonly=off")
}

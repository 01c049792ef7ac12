package zfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
)

// A snapshot that somebody else has cut is marked with what it is called and what it is going to be (cairn:was), renamed, and
// then marked as ours; it is let go of in the opposite order. Between the two marks it is somebody else's: never destroyed.

// foster is a snapshot with cairn:was.
type foster struct {
	row
	name string           // that somebody else gave it
	snap cairn.SnapshotID // that it is, or is to be
}

// foster is the snapshot that is, was, or is to be snap; ok is false if there is none that somebody else has named.
func (f found) foster(snap cairn.SnapshotID) (s foster, ok bool) {
	for _, r := range f.snapshots {
		if s := fosterOf(r); s.name != "" && s.snap == snap {
			return s, true
		}
	}
	return foster{}, false
}

// fosterOf reads cairn:was: neither part can hold a slash.
func fosterOf(r row) foster {
	name, snap, _ := strings.Cut(r["cairn:was"], "/")
	return foster{r, name, cairn.SnapshotID(snap)}
}

// AdoptSnapshot marks, renames, and marks as ours.
func (p *Pool) AdoptSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID, name string) error {
	return change(ctx, p, id, "adopt snapshot", func(o *op) error {
		if err := checkSnapshotName(name); err != nil {
			return err
		}
		f, err := o.lookReady(epoch)
		if err != nil {
			return err
		}
		if err := f.checkSnapshot(snap); !errors.Is(err, cairn.ErrNotFound) && !errors.Is(err, errForeign) {
			return err
		}
		s, ok := f.foster(snap)
		if !ok {
			if s, err = f.adoptable(snap, name); err != nil {
				return err
			}
			if err := o.zfs("set", "cairn:was="+name+"/"+string(snap), s.row["name"]); err != nil {
				return err
			}
		}
		ours, err := o.renameSnapshot(s, string(snap))
		if err != nil {
			return err
		}
		return o.zfs("set", snapshotMark, ours)
	})
}

// adoptable finds an unmarked snapshot of that name in the replica's own dataset.
func (f found) adoptable(snap cairn.SnapshotID, name string) (foster, error) {
	at := slices.IndexFunc(f.snapshots, func(r row) bool { return r["name"] == f.at+"@"+name })
	switch {
	case f.named(snap) != nil:
		return foster{}, fmt.Errorf("snapshot %s@%s carries no mark: %w", f.at, snap, errForeign)
	case at < 0:
		return foster{}, fmt.Errorf("snapshot %s@%s: %w", f.at, name, cairn.ErrNotFound)
	case f.snapshots[at]["cairn:snapshot"] != "":
		return foster{}, fmt.Errorf("snapshot %s@%s carries a mark: %w", f.at, name, cairn.ErrExists)
	case f.snapshots[at]["cairn:was"] != "":
		return foster{}, fmt.Errorf("snapshot %s@%s is about to become snapshot %s: %w", f.at, name, fosterOf(f.snapshots[at]).snap, cairn.ErrExists)
	}
	return foster{f.snapshots[at], name, snap}, nil
}

// ReleaseSnapshot takes the mark away, renames, and forgets.
func (p *Pool) ReleaseSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID, name string) error {
	return change(ctx, p, id, "release snapshot", func(o *op) error {
		if err := checkSnapshotName(name); err != nil {
			return err
		}
		f, err := o.lookReady(epoch)
		if err != nil {
			return err
		}
		r := f.snapshot(snap)
		s, ok := f.foster(snap)
		switch {
		case r == nil && !ok:
			if err := f.checkSnapshot(snap); !errors.Is(err, cairn.ErrNotFound) {
				return err
			}
			return nil
		case !ok:
			s = foster{r, name, snap}
		}
		if taken := f.row["name"] + "@" + s.name; s.row["name"] != taken && slices.ContainsFunc(f.snapshots, func(r row) bool { return r["name"] == taken }) {
			return fmt.Errorf("snapshot %s: %w", taken, errForeign)
		}
		if r != nil && r.number("userrefs") > 0 {
			if err := o.releaseStaleHold(r["name"]); err != nil {
				return err
			}
		}
		if !ok {
			if err := o.zfs("set", "cairn:was="+name+"/"+string(snap), r["name"]); err != nil {
				return err
			}
		}
		return o.giveSnapshotBack(s)
	})
}

// giveSnapshotBack lets go of a snapshot wherever its adoption or its release has got to.
func (o *op) giveSnapshotBack(s foster) error {
	if s.row["cairn:snapshot"] != "" {
		if err := o.zfs("inherit", "cairn:snapshot", s.row["name"]); err != nil {
			return err
		}
	}
	theirs, err := o.renameSnapshot(s, s.name)
	if err != nil {
		return err
	}
	return o.zfs("inherit", "cairn:was", theirs)
}

// renameSnapshot gives a snapshot a name, if it has not got it, and returns it with that of its dataset.
func (o *op) renameSnapshot(s foster, name string) (string, error) {
	at, _, _ := strings.Cut(s.row["name"], "@")
	to := at + "@" + name
	if to == s.row["name"] {
		return to, nil
	}
	return to, o.zfs("rename", s.row["name"], to)
}

// checkSnapshotName refuses what the tool would not take for the name of one snapshot.
func checkSnapshotName(name string) error {
	if strings.HasPrefix(name, "-") {
		return fmt.Errorf("name %q: would be taken for an option: %w", name, cairn.ErrInvalid)
	}
	return cairn.CheckObjectName("snapshot", name)
}

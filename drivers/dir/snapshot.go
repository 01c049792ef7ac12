package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

func (p *Pool) snapshot(id cairn.ReplicaID, snap cairn.SnapshotID) string {
	return filepath.Join(p.home(id), "snapshots", string(snap))
}

func (p *Pool) snapshotWork(id cairn.ReplicaID, snap cairn.SnapshotID) string {
	return filepath.Join(p.home(id), "work", string(snap))
}

// checkSnapshot is cairn.ErrNotFound if the replica, which is there, certainly has no ready snapshot of that ID.
func (p *Pool) checkSnapshot(id cairn.ReplicaID, snap cairn.SnapshotID) error {
	if err := cairn.CheckName("snapshot", string(snap)); err != nil {
		return err
	}
	_, err := os.Lstat(p.snapshot(id, snap))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("snapshot %s: %w", snap, cairn.ErrNotFound)
	}
	return err
}

// CreateSnapshot copies the data aside and places the copy last. The caller has stopped writers.
func (p *Pool) CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (drivers.SnapshotObject, error) {
	return call(ctx, p, id, "create snapshot", func(o *op) (drivers.SnapshotObject, error) {
		if err := cairn.CheckName("snapshot", string(snap)); err != nil {
			return drivers.SnapshotObject{}, err
		}
		f, err := o.lookReady(epoch)
		if err != nil {
			return drivers.SnapshotObject{}, err
		}
		object := drivers.SnapshotObject{ID: snap, Ready: true, Root: o.snapshot(id, snap)}
		if err := o.checkSnapshot(id, snap); !errors.Is(err, cairn.ErrNotFound) {
			object.Order = f.orderOf(snap)
			return object, err
		}
		if err := o.cut(&f, snap); err != nil {
			return drivers.SnapshotObject{}, o.undo(err, func() error { return o.removeTree(o.snapshotWork(id, snap)) })
		}
		object.Order = f.orderOf(snap)
		return object, nil
	})
}

// append makes a snapshot that is about to be placed the newest one. Names of snapshots that are gone are dropped.
func (o *op) append(f *found, snap cairn.SnapshotID) error {
	order := []cairn.SnapshotID{}
	for _, old := range f.Order {
		switch err := o.checkSnapshot(o.id, old); {
		case err == nil:
			order = append(order, old)
		case !errors.Is(err, cairn.ErrNotFound):
			return err
		}
	}
	f.Order = append(order, snap)
	return o.writeMark(o.home(o.id), f.mark)
}

// orderOf is the place of a snapshot among the replica's, 0 if nobody has written it down.
func (m *mark) orderOf(snap cairn.SnapshotID) uint64 { return uint64(slices.Index(m.Order, snap) + 1) }

func (o *op) cut(f *found, snap cairn.SnapshotID) error {
	work, data := o.snapshotWork(o.id, snap), filepath.Join(o.home(o.id), "data")
	x, err := makeIndex(o.ctx, snap, data)
	if err != nil {
		return err
	}
	if err := o.copyAside(data, work, 0); err != nil {
		return err
	}
	if err := o.append(f, snap); err != nil {
		return err
	}
	o.indexes.keep(o.id, x)
	return o.rename("COMMIT place snapshot", work, o.snapshot(o.id, snap))
}

// copyAside makes a durable copy of a project in a place that holds nothing but remains.
func (o *op) copyAside(src, dst string, p project) error {
	if err := o.removeTree(dst); err != nil {
		return err
	}
	if err := o.copyTree(src, dst, p); err != nil {
		return err
	}
	return o.syncAll()
}

// DeleteSnapshot takes the snapshot out of sight in one step, then removes it. Copies made from it do not depend on it;
// cairn.ErrInUse only while one is being made.
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
		if !f.placed { // being removed, and its snapshots with it
			return nil
		}
		return o.removeSnapshot(snap)
	})
}

func (o *op) removeSnapshot(snap cairn.SnapshotID) error {
	release, err := o.claims.take(snap, true)
	if err != nil {
		return err
	}
	defer release()
	work := o.snapshotWork(o.id, snap)
	if err := o.removeTree(work); err != nil {
		return err
	}
	switch err := o.checkSnapshot(o.id, snap); {
	case errors.Is(err, cairn.ErrNotFound):
	case err != nil:
		return err
	default:
		if err := o.rename("COMMIT take snapshot away", o.snapshot(o.id, snap), work); err != nil {
			return err
		}
		if err := o.removeTree(work); err != nil {
			return err
		}
	}
	return o.do("sync removal", func() error { return syncDirs(filepath.Dir(work)) })
}

// Revert exchanges the data with a copy of the snapshot. Every call that succeeds has done so anew: it never concludes
// from an earlier revert to the same snapshot that there is nothing to do, since clients may have written in between.
// What an interrupted one left is removed first.
func (p *Pool) Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return change(ctx, p, id, "revert", func(o *op) error {
		f, err := o.lookReady(epoch)
		if err != nil {
			return err
		}
		if err := o.checkSnapshot(id, snap); err != nil {
			return err
		}
		aside := filepath.Join(o.home(id), "revert")
		// Both sides belong to the project until the old data is removed.
		err = o.limit(f.Project, unlimited)
		if err == nil {
			err = o.revert(&f, snap, aside)
		}
		if err != nil {
			return o.undo(err, func() error { return errors.Join(o.removeTree(aside), o.limit(f.Project, f.Size)) })
		}
		return o.limit(f.Project, f.Size)
	})
}

func (o *op) revert(f *found, snap cairn.SnapshotID, aside string) error {
	home := o.home(o.id)
	if err := o.copyAside(o.snapshot(o.id, snap), aside, f.Project); err != nil {
		return err
	}
	err := o.do("COMMIT exchange data", func() error {
		err := unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, filepath.Join(home, "data"), unix.RENAME_EXCHANGE)
		if err != nil {
			return fmt.Errorf("exchange %s: %w", aside, err)
		}
		return syncDirs(home)
	})
	if err != nil {
		return err
	}
	f.Reverted = snap
	if err := o.writeMark(home, f.mark); err != nil {
		return err
	}
	if err := o.removeTree(aside); err != nil {
		return err
	}
	return o.do("sync removal", func() error { return syncDirs(home) })
}

// Clone makes a replica whose data is a copy of a snapshot. The copy does not depend on the snapshot.
func (p *Pool) Clone(ctx context.Context, spec drivers.CreateSpec, source cairn.ReplicaID, snap cairn.SnapshotID) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "clone", func(o *op) (drivers.Object, error) {
		want := mark{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, State: stateReady, Source: snap}
		return o.make(spec, &want, func(data string) error {
			release, err := o.claims.take(snap, false)
			if err != nil {
				return err
			}
			defer release()
			origin := &op{Pool: p, ctx: ctx, id: source}
			if err := origin.checkSource(snap, spec.Size); err != nil {
				return err
			}
			return o.copyAside(p.snapshot(source, snap), data, want.Project)
		})
	})
}

// checkSource makes sure that the snapshot to clone is there and fits.
func (o *op) checkSource(snap cairn.SnapshotID, size int64) error {
	if err := cairn.CheckName("replica", string(o.id)); err != nil {
		return err
	}
	f, err := o.look()
	if err != nil {
		return fmt.Errorf("source replica %s: %w", o.id, err)
	}
	if !f.placed {
		return fmt.Errorf("source replica %s: half made or half removed: %w", o.id, cairn.ErrPrecondition)
	}
	if err := o.checkSnapshot(o.id, snap); err != nil {
		return fmt.Errorf("source replica %s: %w", o.id, err)
	}
	return o.checkFits(o.snapshot(o.id, snap), size)
}

package btrfs

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// CreateSnapshot cuts the snapshot with one command, which makes it whole or not at all.
func (p *Pool) CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (drivers.SnapshotObject, error) {
	return call(ctx, p, id, "create snapshot", func(o *op) (drivers.SnapshotObject, error) {
		if err := cairn.CheckName("snapshot", string(snap)); err != nil {
			return drivers.SnapshotObject{}, err
		}
		f, err := o.lookReady(epoch)
		if err != nil {
			return drivers.SnapshotObject{}, err
		}
		s, err := f.snapshot(snap)
		if errors.Is(err, cairn.ErrNotFound) {
			if err := o.snapshotTo("COMMIT make snapshot", o.in("data"), o.in("snapshots", string(snap)), true); err != nil {
				return drivers.SnapshotObject{}, err
			}
			s.id = snap
			s.subvolume, err = subvolumeAt(o.in("snapshots", string(snap)))
		}
		if err != nil {
			return drivers.SnapshotObject{}, err
		}
		return o.snapshotObject(s), nil
	})
}

// DeleteSnapshot removes one snapshot. Nothing but a stream depends on it: clones share its blocks and do without it.
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
		path := o.in("snapshots", string(snap))
		if o.sends.add(path, 0) > 0 {
			return fmt.Errorf("snapshot %s: is being sent, or is the base of what is sent: %w", snap, cairn.ErrInUse)
		}
		return o.remove(path)
	})
}

// Revert makes a writable snapshot of the snapshot, exchanges it with the data, and removes the old data. Every call that
// succeeds has done so anew: it never concludes from an earlier revert to the same snapshot that there is nothing to do,
// since clients may have written in between.
func (p *Pool) Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return change(ctx, p, id, "revert", func(o *op) error {
		f, err := o.lookReady(epoch)
		if err != nil {
			return err
		}
		if _, err := f.snapshot(snap); err != nil {
			return err
		}
		if err := o.revert(f, snap); err != nil {
			return o.undo(err, func() error { return o.remove(o.in("aside")) })
		}
		return nil
	})
}

func (o *op) revert(f found, snap cairn.SnapshotID) error {
	if err := o.writableCopy(o.in("snapshots", string(snap)), o.in("aside"), f.Size, f.data.readOnly()); err != nil {
		return err
	}
	if err := o.exchange("COMMIT exchange data", o.in("aside"), o.in("data")); err != nil {
		return err
	}
	f.Reverted = snap
	if err := o.writeMark(o.home(o.id), f.mark); err != nil {
		return err
	}
	return o.remove(o.in("aside"))
}

// Clone makes a replica whose data is a writable snapshot of a snapshot. It does not depend on it.
func (p *Pool) Clone(ctx context.Context, spec drivers.CreateSpec, source cairn.ReplicaID, snap cairn.SnapshotID) (drivers.Object, error) {
	return call(ctx, p, spec.ID, "clone", func(o *op) (drivers.Object, error) {
		want := mark{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, State: stateReady, Source: snap}
		return o.make(spec, want, func(work string) error {
			origin := &op{Pool: p, ctx: ctx, id: source}
			path, err := origin.cloneable(snap, spec.Size)
			if err != nil {
				return fmt.Errorf("source replica %s: %w", source, err)
			}
			return o.writableCopy(path, work+"/data", spec.Size, false)
		})
	})
}

// cloneable makes sure that the snapshot to clone is there and fits.
func (o *op) cloneable(snap cairn.SnapshotID, size int64) (string, error) {
	if err := cairn.CheckName("replica", string(o.id)); err != nil {
		return "", err
	}
	f, err := o.look()
	if err != nil {
		return "", err
	}
	if !f.placed {
		return "", fmt.Errorf("half made or half removed: %w", cairn.ErrPrecondition)
	}
	if _, err := f.snapshot(snap); err != nil {
		return "", err
	}
	path := o.in("snapshots", string(snap))
	used, err := o.used(path)
	if err == nil {
		err = checkFits(used, size)
	}
	return path, err
}

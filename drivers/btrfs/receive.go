package btrfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Receive has the tool make a subvolume of the stream. In a replica that comes into being this is the snapshot: the replica is
// placed when it is complete. Its data is made from the snapshot and sealed. In a replica that is there the subvolume is made
// beside the snapshots, and then a snapshot of that: the kernel moves no read-only subvolume. The data stays as it is until
// Revert. What breaks off is removed.
func (p *Pool) Receive(ctx context.Context, spec drivers.ReceiveSpec, r io.Reader) error {
	return change(ctx, p, spec.ID, "receive", func(o *op) error {
		if err := cairn.CheckName("snapshot", string(spec.Snapshot)); err != nil {
			return err
		}
		if err := checkSpec(spec.CreateSpec); err != nil {
			return err
		}
		f, err := o.look()
		if errors.Is(err, cairn.ErrNotFound) || err == nil && !f.ready() && !f.damaged() {
			return o.receiveAll(spec, r)
		}
		if err == nil {
			f, err = o.lookReady(spec.Epoch)
		}
		if err != nil {
			return err
		}
		return o.receiveOn(f, spec, r)
	})
}

// receiveAll makes a replica.
func (o *op) receiveAll(spec drivers.ReceiveSpec, r io.Reader) error {
	if spec.Base != "" {
		return fmt.Errorf("is not there, and the stream starts from snapshot %s: %w", spec.Base, cairn.ErrPrecondition)
	}
	want := mark{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, State: stateReady}
	_, err := o.make(spec.CreateSpec, want, func(work string) error {
		snapshot := filepath.Join(work, "snapshots", string(spec.Snapshot))
		if err := o.receive(snapshot, r); err != nil {
			return err
		}
		return o.writableCopy(snapshot, filepath.Join(work, "data"), spec.Size, true)
	})
	return err
}

// receiveOn adds a snapshot to a replica.
func (o *op) receiveOn(f found, spec drivers.ReceiveSpec, r io.Reader) error {
	if _, err := f.snapshot(spec.Snapshot); !errors.Is(err, cairn.ErrNotFound) {
		return err
	}
	if spec.Base == "" {
		return fmt.Errorf("is there, and the stream is not from one of its snapshots: %w", cairn.ErrExists)
	}
	if _, err := f.snapshot(spec.Base); err != nil {
		return fmt.Errorf("base: %w: %w", cairn.ErrPrecondition, err)
	}
	// What arrives is made from the base, and has its limit: that of the data when it was cut.
	if err := o.limit(o.in("snapshots", string(spec.Base)), unlimited); err != nil {
		return err
	}
	if err := o.receiveBeside(spec.Snapshot, r); err != nil {
		return o.undo(err, func() error { return o.tidy(&f) })
	}
	return nil
}

// receiveBeside makes the stream a snapshot of a replica that is there: whole or not at all.
func (o *op) receiveBeside(snap cairn.SnapshotID, r io.Reader) error {
	arrived := o.in("receive", string(snap))
	if err := o.receive(arrived, r); err != nil {
		return err
	}
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.snapshotTo("COMMIT make snapshot", arrived, o.in("snapshots", string(snap)), true); err != nil {
		return err
	}
	return o.remove(arrived)
}

// receive makes the stream a subvolume, alone in its directory.
func (o *op) receive(path string, r io.Reader) error {
	if err := o.do("receive", func() error { return o.stream(r, nil, "receive", filepath.Dir(path)) }); err != nil {
		return err
	}
	return checkArrived(path)
}

// checkArrived makes sure that the stream was of the snapshot that is wanted, and that the tool has completed it.
func checkArrived(path string) error {
	others, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	if len(others) != 1 || others[0].Name() != filepath.Base(path) {
		return fmt.Errorf("the stream is not of snapshot %s alone: it has left %v: %w", filepath.Base(path), others, cairn.ErrPrecondition)
	}
	s, err := subvolumeAt(path)
	if err == nil && (!s.readOnly() || s.Received == uuid{}) {
		err = fmt.Errorf("the stream has ended and %s is not complete: %w", path, cairn.ErrCorrupt)
	}
	return err
}

// Partial is always empty: btrfs cannot go on with a stream.
func (p *Pool) Partial(context.Context, cairn.ReplicaID) (token string, snap cairn.SnapshotID, err error) {
	return "", "", nil
}

// Abandon removes what a receive has left, and a replica that only that receive has made.
func (p *Pool) Abandon(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return change(ctx, p, id, "abandon", func(o *op) error {
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
		switch {
		case !f.placed:
			return o.discard()
		case f.ready():
			return o.tidy(&f)
		}
		return nil
	})
}

package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Receive writes the stream below the snapshot's own name, without a mark, and marks the snapshot when all of it is there.
// A replica that comes into being is marked as receiving from its first byte on and ready last. What broke off is kept for a
// resumed stream; any other stream needs Abandon first.
func (p *Pool) Receive(ctx context.Context, spec drivers.ReceiveSpec, r io.Reader) error {
	return change(ctx, p, spec.ID, "receive", func(o *op) error {
		if err := cairn.CheckName("snapshot", string(spec.Snapshot)); err != nil {
			return err
		}
		w, err := o.wishes(spec.CreateSpec)
		if err != nil {
			return err
		}
		f, err := o.prepareReceive(spec)
		if err != nil {
			return err
		}
		if f.snapshot(spec.Snapshot) == nil && f.named(spec.Snapshot) == nil {
			if err := o.receive(f, spec, r); err != nil {
				return err
			}
		}
		return o.completeReceive(spec, w)
	})
}

// prepareReceive finds what the stream goes to: nothing if the replica is to come into being. The name of the snapshot is
// recorded before an incremental stream makes it, so that it is known as ours without its mark.
func (o *op) prepareReceive(spec drivers.ReceiveSpec) (found, error) {
	f, err := o.look()
	if errors.Is(err, cairn.ErrNotFound) {
		if spec.Base != "" {
			return found{}, fmt.Errorf("is absent, and the stream starts from snapshot %s: %w", spec.Base, cairn.ErrPrecondition)
		}
		return found{}, nil
	}
	if err != nil {
		return found{}, err
	}
	if err := o.admit(&f, spec.Epoch); err != nil {
		return found{}, err
	}
	if f.state == stateReceiving && f.receiving == spec.Snapshot {
		return f, nil
	}
	if f.state != stateReady {
		return found{}, o.remove(f)
	}
	switch err := f.checkSnapshot(spec.Snapshot); {
	case err == nil:
		return f, nil
	case !errors.Is(err, cairn.ErrNotFound) && f.receiving != spec.Snapshot:
		return found{}, err
	}
	if spec.Base == "" {
		return found{}, fmt.Errorf("is there, and the stream is not from one of its snapshots: %w", cairn.ErrExists)
	}
	if err := f.checkSnapshot(spec.Base); err != nil {
		return found{}, fmt.Errorf("base: %w: %w", cairn.ErrPrecondition, err)
	}
	if f.receiving == spec.Snapshot {
		return f, nil
	}
	if f.row["receive_resume_token"] != "" {
		return found{}, fmt.Errorf("a receive of snapshot %s broke off: resume or abandon it: %w", f.receiving, cairn.ErrPrecondition)
	}
	return f, o.zfs("set", "readonly=on", "cairn:receiving="+string(spec.Snapshot), f.at) // and does not remount it
}

func (o *op) receive(f found, spec drivers.ReceiveSpec, r io.Reader) error {
	args := []string{"receive", "-s", "-u"}
	if f.state != stateReady {
		args = append(args, mark(spec.CreateSpec, stateReceiving)...)
		args = append(args, options("readonly=on", "snapdir=hidden", "cairn:receiving="+string(spec.Snapshot))...)
	}
	args = append(args, o.at(spec.ID)+"@"+string(spec.Snapshot))
	_, err := o.runner.Stream(o.ctx, tool.Cmd{Name: "zfs", Args: args}, r, nil)
	return diagnose(err)
}

// completeReceive makes ready what has arrived. Limits are set now: the tool ignores those that it cannot set while it
// receives, and succeeds.
func (o *op) completeReceive(spec drivers.ReceiveSpec, w wishes) error {
	f, err := o.lookAt(o.at(spec.ID))
	if err != nil {
		return err
	}
	r := f.named(spec.Snapshot)
	if r == nil {
		return fmt.Errorf("the stream ended and left no snapshot %s: %w", spec.Snapshot, cairn.ErrPrecondition)
	}
	if r["cairn:snapshot"] == "" {
		if err := o.zfs("set", snapshotMark, r["name"]); err != nil {
			return err
		}
	}
	if f.state != stateReady {
		if err := w.checkEncrypted(f.row); err != nil {
			return err
		}
		last := properties(w.limits)
		if w.keyFile != "" {
			last = append(last, "cairn:key="+w.keyFile)
		}
		for _, property := range append(last, "cairn:state="+string(stateReady)) {
			if err := o.zfs("set", property, f.at); err != nil {
				return err
			}
		}
	}
	if f.receiving != "" {
		if err := o.zfs("inherit", "cairn:receiving", f.at); err != nil {
			return err
		}
	}
	_, err = o.again() // which mounts it
	return err
}

// Partial reads the resume token that OpenZFS keeps with what it has received.
func (p *Pool) Partial(ctx context.Context, id cairn.ReplicaID) (token string, snap cairn.SnapshotID, err error) {
	f, err := look(ctx, p, id, "partial", (*op).look)
	switch {
	case errors.Is(err, cairn.ErrNotFound):
		return "", "", nil
	case err != nil:
		return "", "", err
	case f.row["receive_resume_token"] == "" || f.receiving == "":
		return "", "", nil
	}
	return f.row["receive_resume_token"], f.receiving, nil
}

// Abandon throws away what a receive has left, and a replica that only that receive has made.
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
		case f.state == stateReceiving:
			return o.discard(f)
		case f.row["receive_resume_token"] != "":
			if err := o.zfs("receive", "-A", f.at); err != nil {
				return err
			}
		}
		if f.receiving == "" {
			return nil
		}
		return o.zfs("inherit", "cairn:receiving", f.at)
	})
}

// discard removes a replica that has never been ready.
func (o *op) discard(f found) error {
	if f.row["receive_resume_token"] != "" {
		return o.zfs("receive", "-A", f.at)
	}
	for _, r := range f.snapshots {
		if r["name"] != f.at+"@"+string(f.receiving) {
			return f.checkNoSnapshots()
		}
		if err := o.zfs("destroy", r["name"]); err != nil {
			return err
		}
	}
	return o.zfs("destroy", f.at)
}

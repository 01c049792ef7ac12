package zfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/tool"
)

// Receive writes the stream below the snapshot's own name, without a mark, and marks the snapshot when all of it is there.
// What broke off is kept for a resumed stream; any other stream needs Abandon first.
//
// A replica that comes into being is received into a dataset that is made for it and marked first. "zfs receive" makes a dataset
// in one transaction group and sets its properties in the next: what power left between them has the mark of what it is in.
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
		if f.named(spec.Snapshot) == nil {
			if f, err = o.receive(f, spec, r); err != nil {
				return err
			}
		}
		return o.completeReceive(f, spec, w)
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
	if f.state == stateReceiving && f.receiving == spec.Snapshot && (f.incoming() || f.named(spec.Snapshot) != nil) {
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

// receive reads the stream, and looks at what it has made.
func (o *op) receive(f found, spec drivers.ReceiveSpec, r io.Reader) (found, error) {
	into := o.at(spec.ID)
	if f.state != stateReady {
		in := into + incomingSuffix
		if f.at == "" {
			options := append(mark(spec.CreateSpec, stateReceiving), options("cairn:receiving="+string(spec.Snapshot), "canmount=off", "readonly=on")...)
			if err := o.zfs(slices.Concat([]string{"create"}, options, []string{in})...); err != nil {
				return found{}, err
			}
		}
		into = in + incomingData
	}
	_, err := o.runner.Stream(o.ctx, tool.Cmd{Name: "zfs", Args: []string{"receive", "-s", "-u", into + "@" + string(spec.Snapshot)}}, r, nil)
	if err != nil {
		return found{}, diagnose(err)
	}
	if f.state != stateReady {
		return o.lookIncoming()
	}
	return o.lookAt(f.at)
}

// incomingData is the dataset of the stream, below the one that was made for it.
const incomingData = "/data"

// incoming: it is what a full stream goes into, which is not ready and not in its place.
func (f found) incoming() bool {
	return strings.HasSuffix(f.at, incomingSuffix) && f.state == stateReceiving
}

// lookIncoming reads the dataset that was made for a full stream, and, once there is one, the row and the snapshots of what is in it.
func (o *op) lookIncoming() (found, error) {
	f, err := o.lookAt(o.at(o.id) + incomingSuffix)
	if err != nil {
		return found{}, err
	}
	rows, err := o.rowsOf(f.at + incomingData)
	if errors.Is(err, errGone) {
		return f, nil
	}
	if err != nil {
		return found{}, err
	}
	f.row, f.snapshots, f.below = rows[0], nil, nil
	for _, r := range rows[1:] {
		if r["type"] == "snapshot" {
			f.snapshots = append(f.snapshots, r)
		}
	}
	return f, nil
}

// completeReceive makes ready what has arrived. Limits are set now: the tool ignores those that it cannot set while it
// receives, and succeeds.
func (o *op) completeReceive(f found, spec drivers.ReceiveSpec, w wishes) error {
	r := f.named(spec.Snapshot)
	if r == nil {
		return fmt.Errorf("the stream ended and left no snapshot %s: %w", spec.Snapshot, cairn.ErrPrecondition)
	}
	if r["cairn:snapshot"] == "" {
		if err := o.zfs("set", snapshotMark, r["name"]); err != nil {
			return err
		}
	}
	if f.incoming() {
		if err := o.place(f, spec, w); err != nil {
			return err
		}
	}
	home := o.at(spec.ID)
	if f.state != stateReady {
		if err := o.removeEmptied(); err != nil {
			return err
		}
		if err := o.zfs("set", "cairn:state="+string(stateReady), home); err != nil {
			return err
		}
	}
	if f.receiving != "" {
		if err := o.zfs("inherit", "cairn:receiving", home); err != nil {
			return err
		}
	}
	_, err := o.again() // which mounts it
	return err
}

// place gives what has arrived a mark of its own, its limits, and its name.
func (o *op) place(f found, spec drivers.ReceiveSpec, w wishes) error {
	if err := w.checkEncrypted(f.row); err != nil {
		return err
	}
	at := f.at + incomingData
	own := append(properties(mark(spec.CreateSpec, stateReceiving)), "cairn:receiving="+string(spec.Snapshot), "readonly=on", at)
	if err := o.zfs(append([]string{"set"}, own...)...); err != nil {
		return err
	}
	limits := properties(w.limits)
	if w.keyFile != "" {
		limits = append(limits, "cairn:key="+w.keyFile)
	}
	for _, property := range limits {
		if err := o.zfs("set", property, at); err != nil {
			return err
		}
	}
	return o.zfs("rename", at, o.at(spec.ID))
}

// removeEmptied removes the dataset that a full stream went into, if it is there still.
func (o *op) removeEmptied() error {
	if err := o.zfs("destroy", o.at(o.id)+incomingSuffix); err != nil && !errors.Is(err, errGone) {
		return err
	}
	return nil
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

// discard removes a replica that has never been ready: what has arrived, and then what was made for it.
func (o *op) discard(f found) error {
	at := f.row["name"]
	switch {
	case f.incoming() && at == f.at: // nothing has arrived
	case f.row["receive_resume_token"] != "":
		if err := o.zfs("receive", "-A", at); err != nil {
			return err
		}
	default:
		for _, r := range f.snapshots {
			if r.snapshotName() != string(f.receiving) {
				return f.checkNoSnapshots()
			}
			if err := o.zfs("destroy", r["name"]); err != nil {
				return err
			}
		}
		if err := o.zfs("destroy", at); err != nil {
			return err
		}
	}
	return o.removeEmptied()
}

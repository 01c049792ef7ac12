package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// A memoryPool sends and receives as ZFS does: into the replica's own data, which must not have changed.

func (p *memoryPool) Seal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	err := p.change(ctx, "seal", id, epoch, func(o *memoryObject) error { o.Sealed = true; return nil })
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	return err
}

func (p *memoryPool) Unseal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return p.change(ctx, "unseal", id, epoch, func(o *memoryObject) error { o.Sealed = false; return nil })
}

// streamEnd makes a stream that was cut off look like one.
const streamEnd = "\x00end"

func (p *memoryPool) Send(_ context.Context, id cairn.ReplicaID, spec drivers.SendSpec, w io.Writer) error {
	object, err := p.look(id)
	if err != nil {
		return err
	}
	data, ok := object.snapshots[spec.Snapshot]
	if _, based := object.snapshots[spec.Base]; !ok || spec.Base != "" && !based {
		return fmt.Errorf("snapshot %s or base %s: %w", spec.Snapshot, spec.Base, cairn.ErrNotFound)
	}
	p.send(spec.Snapshot, 1)
	defer p.send(spec.Snapshot, -1)
	if spec.Snapshot == p.worn {
		return errMemory
	}
	_, err = io.WriteString(w, data+streamEnd)
	return err
}

// send counts those who send a snapshot.
func (m *memory) send(snap cairn.SnapshotID, change int) (before int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.sending[snap]
	m.sending[snap] += change
	return before
}

func (p *memoryPool) SendSize(_ context.Context, id cairn.ReplicaID, spec drivers.SendSpec) (int64, error) {
	object, err := p.look(id)
	return int64(len(object.snapshots[spec.Snapshot])), err
}

func (p *memoryPool) Changed(_ context.Context, id cairn.ReplicaID, since cairn.SnapshotID) (int64, error) {
	object, err := p.look(id)
	if err != nil {
		return 0, err
	}
	data, ok := object.snapshots[since]
	switch {
	case !ok:
		return 0, fmt.Errorf("snapshot %s: %w", since, cairn.ErrNotFound)
	case data == object.data:
		return 0, nil
	}
	return 1, nil
}

func (p *memoryPool) Receive(ctx context.Context, spec drivers.ReceiveSpec, r io.Reader) error {
	object, err := p.look(spec.ID)
	switch {
	case err == nil && spec.Epoch < object.Epoch:
		return fmt.Errorf("epoch %d is below %d: %w", spec.Epoch, object.Epoch, cairn.ErrStale)
	case err == nil && object.orders[spec.Snapshot] > 0:
		return nil
	case err == nil && spec.Base == "":
		return fmt.Errorf("a stream of everything for what is there: %w", cairn.ErrExists)
	case err == nil && object.orders[spec.Base] == 0, err != nil && spec.Base != "":
		return fmt.Errorf("base %s: %w", spec.Base, cairn.ErrPrecondition)
	case err != nil && !errors.Is(err, cairn.ErrNotFound):
		return err
	}
	stream, err := io.ReadAll(r)
	data, whole := strings.CutSuffix(string(stream), streamEnd)
	if err != nil || !whole {
		return fmt.Errorf("stream of %d bytes: %w: %w", len(stream), cairn.ErrCorrupt, err)
	}
	if spec.Base == "" {
		return p.do(ctx, "receive", func() error {
			object := memoryObject{data: data, snapshots: map[cairn.SnapshotID]string{}, orders: map[cairn.SnapshotID]uint64{}, Object: drivers.Object{
				ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, Ready: true, Sealed: true, Root: p.name + "/" + string(spec.ID),
			}}
			object.keep(spec.Snapshot, data)
			p.put(object)
			return nil
		})
	}
	return p.change(ctx, "receive", spec.ID, spec.Epoch, func(o *memoryObject) error {
		base, ok := o.snapshots[spec.Base]
		if !ok || o.data != base || o.head != o.orders[spec.Base] {
			return fmt.Errorf("changed since %s: %w", spec.Base, cairn.ErrPrecondition)
		}
		o.data = data
		o.keep(spec.Snapshot, data)
		return nil
	})
}

func (p *memoryPool) Partial(context.Context, cairn.ReplicaID) (string, cairn.SnapshotID, error) {
	return "", "", nil
}

func (p *memoryPool) Abandon(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	err := p.change(ctx, "abandon", id, epoch, func(*memoryObject) error { return nil })
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	return err
}

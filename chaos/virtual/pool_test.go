package virtual

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// shelf is the disk of a machine under its pool. It outlives processes; every change is one step.
type shelf struct {
	mu      sync.Mutex
	objects map[cairn.ReplicaID]*object
}

// object is a replica: its lines, and those of its snapshots.
type object struct {
	drivers.Object
	lines   string
	cuts    map[cairn.SnapshotID]cut
	newest  uint64
	head    uint64 // the snapshot that the lines go on from
	sending map[cairn.SnapshotID]int
}

type cut struct {
	lines string
	order uint64
}

// pool is what a process makes of the shelf: it keeps the drivers' contract, takes its time, and does nothing once its process is
// dead.
type pool struct {
	*shelf
	process *process
}

var errFault = errors.New("input/output error")

// step makes one change, before or after which the process may have died, or the disk may have failed.
func (p *pool) step(ctx context.Context, change func() error) error {
	w := p.process.world
	time.Sleep(w.some(20 * time.Millisecond))
	switch {
	case p.process.dead.Load():
		return errDead
	case ctx.Err() != nil:
		return ctx.Err()
	case w.chance(1):
		return errFault
	}
	p.mu.Lock()
	err := change()
	p.mu.Unlock()
	time.Sleep(w.some(20 * time.Millisecond))
	switch {
	case p.process.dead.Load():
		return errDead
	case err == nil && w.chance(1):
		return fmt.Errorf("it was done and is not said to be: %w", cairn.ErrTimeout)
	}
	return err
}

// change finds the replica and admits the epoch.
func (p *pool) change(ctx context.Context, id cairn.ReplicaID, epoch uint64, f func(*object) error) error {
	return p.step(ctx, func() error {
		o := p.objects[id]
		switch {
		case o == nil:
			return fmt.Errorf("replica %s: %w", id, cairn.ErrNotFound)
		case epoch < o.Epoch:
			return fmt.Errorf("epoch %d is below %d: %w", epoch, o.Epoch, cairn.ErrStale)
		}
		o.Epoch = epoch
		return f(o)
	})
}

func (p *pool) Info(context.Context) (drivers.Info, error) {
	return drivers.Info{Total: 1 << 50, Free: 1 << 49, Enforcement: drivers.EnforcedByFileSystem, AtomicSnapshots: true}, nil
}

func (p *pool) Stat(_ context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.objects[id]
	if o == nil {
		return drivers.Object{}, fmt.Errorf("replica %s: %w", id, cairn.ErrNotFound)
	}
	return o.found(), nil
}

func (o *object) found() drivers.Object {
	found := o.Object
	for _, id := range slices.Sorted(maps.Keys(o.cuts)) {
		found.Snapshots = append(found.Snapshots, drivers.SnapshotObject{ID: id, Ready: true, Root: "@" + string(id), Order: o.cuts[id].order})
	}
	return found
}

func (p *pool) List(context.Context) ([]drivers.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []drivers.Object
	for _, id := range slices.Sorted(maps.Keys(p.objects)) {
		list = append(list, p.objects[id].found())
	}
	return list, nil
}

func newObject(spec drivers.CreateSpec) *object {
	return &object{
		Object: drivers.Object{ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, Ready: true, Root: string(spec.ID)},
		cuts:   make(map[cairn.SnapshotID]cut), sending: make(map[cairn.SnapshotID]int),
	}
}

func (p *pool) Create(ctx context.Context, spec drivers.CreateSpec) (drivers.Object, error) {
	err := p.step(ctx, func() error {
		if p.objects[spec.ID] == nil {
			p.objects[spec.ID] = newObject(spec)
		}
		return nil
	})
	if err != nil {
		return drivers.Object{}, err
	}
	return p.Stat(ctx, spec.ID)
}

func (p *pool) Delete(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return absentIsFine(p.change(ctx, id, epoch, func(o *object) error {
		if len(o.cuts) > 0 {
			return fmt.Errorf("has snapshots: %w", cairn.ErrInUse)
		}
		delete(p.objects, id)
		return nil
	}))
}

func absentIsFine(err error) error {
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	return err
}

func (o *object) keep(id cairn.SnapshotID, lines string) {
	o.newest++
	o.cuts[id], o.head = cut{lines, o.newest}, o.newest
}

func (p *pool) CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (drivers.SnapshotObject, error) {
	err := p.change(ctx, id, epoch, func(o *object) error {
		if _, there := o.cuts[snap]; !there {
			o.keep(snap, o.lines)
		}
		return nil
	})
	return drivers.SnapshotObject{ID: snap, Ready: true}, err
}

func (p *pool) DeleteSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return absentIsFine(p.change(ctx, id, epoch, func(o *object) error {
		if o.sending[snap] > 0 {
			return fmt.Errorf("snapshot %s is being sent: %w", snap, cairn.ErrInUse)
		}
		delete(o.cuts, snap)
		return nil
	}))
}

func (p *pool) Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return p.change(ctx, id, epoch, func(o *object) error {
		c, there := o.cuts[snap]
		if !there {
			return fmt.Errorf("snapshot %s: %w", snap, cairn.ErrNotFound)
		}
		o.lines, o.head, o.Reverted = c.lines, c.order, snap
		return nil
	})
}

func (p *pool) Seal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return absentIsFine(p.change(ctx, id, epoch, func(o *object) error { o.Sealed = true; return nil }))
}

func (p *pool) Unseal(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return p.change(ctx, id, epoch, func(o *object) error { o.Sealed = false; return nil })
}

// whole is the end of a stream that nobody has cut off.
const whole = "\x00whole"

func (p *pool) Send(_ context.Context, id cairn.ReplicaID, spec drivers.SendSpec, w io.Writer) error {
	p.mu.Lock()
	o := p.objects[id]
	if o == nil {
		p.mu.Unlock()
		return fmt.Errorf("replica %s: %w", id, cairn.ErrNotFound)
	}
	c, there := o.cuts[spec.Snapshot]
	if _, based := o.cuts[spec.Base]; !there || spec.Base != "" && !based {
		p.mu.Unlock()
		return fmt.Errorf("snapshot %s or base %s: %w", spec.Snapshot, spec.Base, cairn.ErrNotFound)
	}
	o.sending[spec.Snapshot]++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		o.sending[spec.Snapshot]--
	}()
	_, err := io.WriteString(w, c.lines+whole)
	return err
}

func (p *pool) SendSize(context.Context, cairn.ReplicaID, drivers.SendSpec) (int64, error) {
	return 1, nil
}

func (p *pool) Changed(_ context.Context, id cairn.ReplicaID, since cairn.SnapshotID) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.objects[id]
	if o == nil {
		return 0, fmt.Errorf("replica %s: %w", id, cairn.ErrNotFound)
	}
	c, there := o.cuts[since]
	switch {
	case !there:
		return 0, fmt.Errorf("snapshot %s: %w", since, cairn.ErrNotFound)
	case c.lines == o.lines:
		return 0, nil
	}
	return 1, nil
}

func (p *pool) Receive(ctx context.Context, spec drivers.ReceiveSpec, r io.Reader) error {
	stream, err := io.ReadAll(r)
	lines, all := strings.CutSuffix(string(stream), whole)
	if err != nil || !all {
		return fmt.Errorf("stream of %d bytes: %w: %w", len(stream), cairn.ErrCorrupt, err)
	}
	return p.step(ctx, func() error {
		o := p.objects[spec.ID]
		switch {
		case o == nil && spec.Base != "":
			return fmt.Errorf("base %s: %w", spec.Base, cairn.ErrPrecondition)
		case o == nil:
			o = newObject(spec.CreateSpec)
			o.Sealed = true
			p.objects[spec.ID] = o
		case spec.Epoch < o.Epoch:
			return fmt.Errorf("epoch %d is below %d: %w", spec.Epoch, o.Epoch, cairn.ErrStale)
		case o.cuts[spec.Snapshot].order > 0:
			return nil
		case spec.Base == "":
			return fmt.Errorf("a stream of everything for what is there: %w", cairn.ErrExists)
		case o.cuts[spec.Base].order == 0 || o.lines != o.cuts[spec.Base].lines || o.head != o.cuts[spec.Base].order:
			return fmt.Errorf("changed since %s: %w", spec.Base, cairn.ErrPrecondition)
		}
		o.Epoch, o.lines = spec.Epoch, lines
		o.keep(spec.Snapshot, lines)
		return nil
	})
}

func (p *pool) Partial(context.Context, cairn.ReplicaID) (string, cairn.SnapshotID, error) {
	return "", "", nil
}
func (p *pool) Abandon(context.Context, cairn.ReplicaID, uint64) error { return nil }

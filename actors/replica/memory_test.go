package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/drivertest"
)

// memory is a disk in memory. Every change of a replica is one step, so nothing is ever half made.
type memory struct {
	name    string
	mu      sync.Mutex
	objects map[cairn.ReplicaID]memoryObject
	foreign map[string]string
	sending map[cairn.SnapshotID]int
	broken  bool
	worn    cairn.SnapshotID // cannot be read to its end
}

type memoryObject struct {
	drivers.Object
	data      string
	snapshots map[cairn.SnapshotID]string
	orders    map[cairn.SnapshotID]uint64 // of the snapshots
	newest    uint64
	head      uint64 // the snapshot that the data goes on from
	doomed    bool   // to be removed by the step that says so
}

func newMemory(name string) *memory {
	return &memory{name: name, objects: make(map[cairn.ReplicaID]memoryObject), foreign: make(map[string]string), sending: make(map[cairn.SnapshotID]int)}
}

var errMemory = errors.New("input/output error")

// memoryPool keeps the contract over a memory; do performs each of its changes. It stands in for a pool where everything
// has to run on one thread from a seed. It passes drivertest.Conformance.
type memoryPool struct {
	*memory
	do func(ctx context.Context, name string, change func() error) error
}

func (p *memoryPool) look(id cairn.ReplicaID) (memoryObject, error) {
	if err := cairn.CheckName("replica", string(id)); err != nil {
		return memoryObject{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	object, ok := p.objects[id]
	switch _, foreign := p.foreign[string(id)]; {
	case p.broken:
		return object, errMemory
	case foreign:
		return object, fmt.Errorf("a foreign object has the name %s: %w", id, cairn.ErrExists)
	case !ok:
		return object, fmt.Errorf("replica %s: %w", id, cairn.ErrNotFound)
	}
	object.snapshots, object.orders = maps.Clone(object.snapshots), maps.Clone(object.orders)
	object.Object.Snapshots = nil
	for _, snap := range slices.Sorted(maps.Keys(object.snapshots)) {
		object.Object.Snapshots = append(object.Object.Snapshots, drivers.SnapshotObject{
			ID: snap, Ready: true, Root: object.Root + "@" + string(snap), Order: object.orders[snap],
		})
	}
	return object, nil
}

// change finds the replica, admits the epoch, and keeps what f makes of it, all in one step: clients write meanwhile.
func (p *memoryPool) change(ctx context.Context, name string, id cairn.ReplicaID, epoch uint64, f func(*memoryObject) error) error {
	return p.do(ctx, name, func() error {
		object, err := p.look(id)
		if err != nil {
			return err
		}
		if epoch < object.Epoch {
			return fmt.Errorf("epoch %d is below %d: %w", epoch, object.Epoch, cairn.ErrStale)
		}
		object.Epoch = epoch
		if err := f(&object); err != nil {
			return err
		}
		p.put(object)
		return nil
	})
}

func (p *memoryPool) put(object memoryObject) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.objects[object.ID] = object; object.doomed {
		delete(p.objects, object.ID)
	}
}

func (p *memoryPool) Info(context.Context) (drivers.Info, error) {
	return drivers.Info{Total: 1 << 50, Free: 1 << 49, Enforcement: drivers.EnforcedByExporter, AtomicSnapshots: true}, nil
}

func (p *memoryPool) Stat(_ context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	object, err := p.look(id)
	return object.Object, err
}

func (p *memoryPool) List(context.Context) ([]drivers.Object, error) {
	p.mu.Lock()
	ids, broken := slices.Sorted(maps.Keys(p.objects)), p.broken
	p.mu.Unlock()
	if broken {
		return nil, errMemory
	}
	var list []drivers.Object
	for _, id := range ids {
		object, err := p.look(id)
		if errors.Is(err, cairn.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, object.Object)
	}
	return list, nil
}

// make creates a replica with the data, or adopts the one that is there with the same specification.
func (p *memoryPool) make(ctx context.Context, name string, spec drivers.CreateSpec, source cairn.SnapshotID, data string) (drivers.Object, error) {
	if err := cairn.CheckSize(spec.Size); err != nil {
		return drivers.Object{}, err
	}
	err := p.change(ctx, name, spec.ID, spec.Epoch, func(o *memoryObject) error {
		if o.Size != spec.Size || o.Source != source {
			return fmt.Errorf("replica %s has another specification: %w", spec.ID, cairn.ErrExists)
		}
		return nil
	})
	if errors.Is(err, cairn.ErrNotFound) {
		err = p.do(ctx, name, func() error {
			p.put(memoryObject{data: data, snapshots: map[cairn.SnapshotID]string{}, orders: map[cairn.SnapshotID]uint64{}, Object: drivers.Object{
				ID: spec.ID, Epoch: spec.Epoch, Size: spec.Size, Ready: true, Source: source, Root: p.name + "/" + string(spec.ID),
			}})
			return nil
		})
	}
	if err != nil {
		return drivers.Object{}, err
	}
	return p.Stat(ctx, spec.ID)
}

func (p *memoryPool) Create(ctx context.Context, spec drivers.CreateSpec) (drivers.Object, error) {
	return p.make(ctx, "create", spec, "", "")
}

func (p *memoryPool) Clone(ctx context.Context, spec drivers.CreateSpec, source cairn.ReplicaID, snap cairn.SnapshotID) (drivers.Object, error) {
	if object, err := p.look(spec.ID); err == nil && object.Source == snap {
		return p.make(ctx, "clone", spec, snap, "")
	}
	from, err := p.look(source)
	if err != nil {
		return drivers.Object{}, err
	}
	data, ok := from.snapshots[snap]
	if !ok {
		return drivers.Object{}, fmt.Errorf("snapshot %s: %w", snap, cairn.ErrNotFound)
	}
	return p.make(ctx, "clone", spec, snap, data)
}

func (p *memoryPool) Delete(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	err := p.change(ctx, "delete", id, epoch, func(o *memoryObject) error {
		if len(o.snapshots) > 0 {
			return fmt.Errorf("has snapshots: %w", cairn.ErrInUse)
		}
		o.doomed = true
		return nil
	})
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	return err
}

func (p *memoryPool) Resize(ctx context.Context, id cairn.ReplicaID, epoch uint64, size int64) error {
	if err := cairn.CheckSize(size); err != nil {
		return err
	}
	return p.change(ctx, "resize", id, epoch, func(o *memoryObject) error {
		if used := int64(len(o.data)); size < used {
			return fmt.Errorf("%d bytes are used: %w", used, cairn.ErrDataLoss)
		}
		o.Size = size
		return nil
	})
}

func (p *memoryPool) CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (drivers.SnapshotObject, error) {
	err := cairn.CheckName("snapshot", string(snap))
	if err == nil {
		err = p.change(ctx, "snapshot", id, epoch, func(o *memoryObject) error {
			if _, ok := o.snapshots[snap]; !ok {
				o.keep(snap, o.data)
			}
			return nil
		})
	}
	return drivers.SnapshotObject{ID: snap, Ready: true, Root: p.name + "/" + string(id) + "@" + string(snap)}, err
}

func (o *memoryObject) keep(snap cairn.SnapshotID, data string) {
	o.newest++
	o.head = o.newest
	o.snapshots[snap], o.orders[snap] = data, o.newest
}

func (p *memoryPool) DeleteSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	if err := cairn.CheckName("snapshot", string(snap)); err != nil {
		return err
	}
	err := p.change(ctx, "delete snapshot", id, epoch, func(o *memoryObject) error {
		if p.send(snap, 0) > 0 {
			return fmt.Errorf("snapshot %s is being sent: %w", snap, cairn.ErrInUse)
		}
		delete(o.snapshots, snap)
		delete(o.orders, snap)
		return nil
	})
	if errors.Is(err, cairn.ErrNotFound) {
		return nil
	}
	return err
}

func (p *memoryPool) Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return p.change(ctx, "revert", id, epoch, func(o *memoryObject) error {
		data, ok := o.snapshots[snap]
		if !ok {
			return fmt.Errorf("snapshot %s: %w", snap, cairn.ErrNotFound)
		}
		o.data, o.Reverted, o.head = data, snap, o.orders[snap]
		return nil
	})
}

// memoryExporter keeps what is served in a map; do performs each of its changes.
type memoryExporter struct {
	do    func(ctx context.Context, name string, change func() error) error
	specs map[drivers.ExportID]drivers.ExportSpec
	// reading are those that somebody has begun to read.
	reading map[drivers.ExportID]bool
}

func (e *memoryExporter) Export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	err := e.do(ctx, "export", func() error { e.specs[spec.ID] = spec; return nil })
	if spec.Standby {
		return []cairn.ExportLocation{{URL: "memory://" + string(spec.ID.Replica), ReadOnly: true}}, err
	}
	return []cairn.ExportLocation{{URL: "memory://" + string(spec.Share) + "/" + string(spec.ID.Snapshot)}}, err
}

// InUse implements drivers.StandbyServer.
func (e *memoryExporter) InUse(_ context.Context, id drivers.ExportID) (bool, error) {
	return e.reading[id], nil
}

func (e *memoryExporter) Unexport(ctx context.Context, id drivers.ExportID) error {
	return e.do(ctx, "unexport", func() error {
		delete(e.specs, id)
		delete(e.reading, id)
		return nil
	})
}

func (e *memoryExporter) Exports(context.Context) ([]drivers.ExportSpec, error) {
	return slices.SortedFunc(maps.Values(e.specs), func(a, b drivers.ExportSpec) int {
		return cmp.Or(cmp.Compare(a.ID.Replica, b.ID.Replica), cmp.Compare(a.ID.Snapshot, b.ID.Snapshot))
	}), nil
}

func (e *memoryExporter) Fence(context.Context, cairn.ReplicaID, uint64) error { return nil }

// Quiesce holds nobody: tests write between two passes, never during one.
func (e *memoryExporter) Quiesce(context.Context, drivers.ExportID) (func(), error) {
	return func() {}, nil
}

// The rest is for package drivertest: memory as its Storage, and memories as its Data.

func (m *memory) Open(_ context.Context, step drivertest.Step) (drivers.Pool, error) {
	return &memoryPool{memory: m, do: func(ctx context.Context, name string, change func() error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- step(name, change) }()
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, nil
}

func (m *memory) Close(drivers.Pool) error { return nil }

func (m *memory) Plant(name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.foreign[name] = ""
	return m.name + "/" + name, nil
}

func (m *memory) Survey([]drivers.Object) (map[string]string, []string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	roots := make(map[string]string)
	for name := range m.foreign {
		roots[name] = m.name + "/" + name
	}
	return roots, nil, nil
}

func (m *memory) Break() (func() error, error) {
	set := func(broken bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.broken = broken
	}
	set(true)
	return func() error { set(false); return nil }, nil
}

// memories finds the memory of a root by its name.
type memories struct{ sync.Map }

func (all *memories) find(root string) (m *memory, name, snap string) {
	disk, rest, _ := strings.Cut(root, "/")
	found, _ := all.Load(disk)
	name, snap, _ = strings.Cut(rest, "@")
	return found.(*memory), name, snap
}

func (all *memories) Fill(root, seed string) error {
	m, name, _ := all.find(root)
	m.mu.Lock()
	defer m.mu.Unlock()
	text := strings.Repeat(seed, 1000)
	if object, ok := m.objects[cairn.ReplicaID(name)]; ok {
		if object.Sealed {
			return errMemory
		}
		object.data = text
		m.objects[object.ID] = object
		return nil
	}
	m.foreign[name] = text
	return nil
}

func (all *memories) Fingerprint(root string) (string, error) {
	m, name, snap := all.find(root)
	m.mu.Lock()
	defer m.mu.Unlock()
	object, ok := m.objects[cairn.ReplicaID(name)]
	switch {
	case !ok:
		return m.foreign[name], nil
	case snap != "":
		return object.snapshots[cairn.SnapshotID(snap)], nil
	}
	return object.data, nil
}

func memoryHarness() drivertest.Harness {
	all, count, mu := &memories{}, 0, &sync.Mutex{}
	return drivertest.Harness{Data: all, New: func(*testing.T) (drivertest.Storage, func()) {
		mu.Lock()
		defer mu.Unlock()
		count++
		m := newMemory(fmt.Sprint("memory", count))
		all.Store(m.name, m)
		return m, func() { all.Delete(m.name) }
	}}
}

func TestMemoryPoolConforms(t *testing.T) { drivertest.Conformance(t, memoryHarness()) }

func TestMemoryPoolCrashSweep(t *testing.T) { drivertest.CrashSweep(t, memoryHarness()) }

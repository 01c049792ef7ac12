package replica

import (
	"context"
	"errors"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/drivers/dir"
	"github.com/cairn-storage/cairn/drivers/webdav"
	"github.com/cairn-storage/cairn/fsm"
)

// rig stands between the actor and everything that it calls.
type rig struct {
	// before is asked before every call; an error is the call's answer. after is asked after it.
	before, after func(ctx context.Context, call string) error
	// crashAt is the point at which the process dies: from then on no call does anything. Points are counted before and
	// after every call, and before and after every change that the pool makes to its disk. 0 is never.
	crashAt int

	mu     sync.Mutex
	points int
	dead   bool
}

var errDead = errors.New("the process is dead")

func (r *rig) point() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return errDead
	}
	r.points++
	if r.points == r.crashAt {
		r.dead = true
		return errDead
	}
	return nil
}

func (r *rig) step(_ string, do func() error) error {
	if err := r.point(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return r.point()
}

func rigged[T any](ctx context.Context, r *rig, call string, do func() (T, error)) (result T, err error) {
	if err := r.point(); err != nil {
		return result, err
	}
	if r.before != nil {
		if err := r.before(ctx, call); err != nil {
			return result, err
		}
	}
	if result, err = do(); err != nil {
		return result, err
	}
	if r.after != nil {
		if err := r.after(ctx, call); err != nil {
			return result, err
		}
	}
	return result, r.point()
}

func riggedCall(ctx context.Context, r *rig, call string, do func() error) error {
	_, err := rigged(ctx, r, call, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

type riggedPool struct {
	*dir.Pool
	rig *rig
}

func (p riggedPool) Stat(ctx context.Context, id cairn.ReplicaID) (drivers.Object, error) {
	return rigged(ctx, p.rig, "stat", func() (drivers.Object, error) { return p.Pool.Stat(ctx, id) })
}

func (p riggedPool) Create(ctx context.Context, spec drivers.CreateSpec) (drivers.Object, error) {
	return rigged(ctx, p.rig, "create", func() (drivers.Object, error) { return p.Pool.Create(ctx, spec) })
}

func (p riggedPool) Clone(ctx context.Context, spec drivers.CreateSpec, source cairn.ReplicaID, snap cairn.SnapshotID) (drivers.Object, error) {
	return rigged(ctx, p.rig, "clone", func() (drivers.Object, error) { return p.Pool.Clone(ctx, spec, source, snap) })
}

func (p riggedPool) Adopt(ctx context.Context, spec drivers.CreateSpec, name string) (drivers.Object, error) {
	return rigged(ctx, p.rig, "adopt", func() (drivers.Object, error) { return p.Pool.Adopt(ctx, spec, name) })
}

func (p riggedPool) Release(ctx context.Context, id cairn.ReplicaID, epoch uint64, name string) error {
	return riggedCall(ctx, p.rig, "release", func() error { return p.Pool.Release(ctx, id, epoch, name) })
}

func (p riggedPool) Delete(ctx context.Context, id cairn.ReplicaID, epoch uint64) error {
	return riggedCall(ctx, p.rig, "delete", func() error { return p.Pool.Delete(ctx, id, epoch) })
}

func (p riggedPool) Resize(ctx context.Context, id cairn.ReplicaID, epoch uint64, size int64) error {
	return riggedCall(ctx, p.rig, "resize", func() error { return p.Pool.Resize(ctx, id, epoch, size) })
}

func (p riggedPool) Revert(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return riggedCall(ctx, p.rig, "revert", func() error { return p.Pool.Revert(ctx, id, epoch, snap) })
}

func (p riggedPool) CreateSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) (drivers.SnapshotObject, error) {
	return rigged(ctx, p.rig, "snapshot", func() (drivers.SnapshotObject, error) { return p.Pool.CreateSnapshot(ctx, id, epoch, snap) })
}

func (p riggedPool) DeleteSnapshot(ctx context.Context, id cairn.ReplicaID, epoch uint64, snap cairn.SnapshotID) error {
	return riggedCall(ctx, p.rig, "delete snapshot", func() error { return p.Pool.DeleteSnapshot(ctx, id, epoch, snap) })
}

type riggedExporter struct {
	*webdav.Exporter
	rig *rig
}

func (e riggedExporter) Export(ctx context.Context, spec drivers.ExportSpec) ([]cairn.ExportLocation, error) {
	return rigged(ctx, e.rig, "export", func() ([]cairn.ExportLocation, error) { return e.Exporter.Export(ctx, spec) })
}

func (e riggedExporter) Unexport(ctx context.Context, id drivers.ExportID) error {
	return riggedCall(ctx, e.rig, "unexport", func() error { return e.Exporter.Unexport(ctx, id) })
}

type riggedApplier struct {
	*state
	rig *rig
}

func (a riggedApplier) Apply(ctx context.Context, meta fsm.Meta, c fsm.Command) (fsm.Result, error) {
	return rigged(ctx, a.rig, "report", func() (fsm.Result, error) { return a.state.Apply(ctx, meta, c) })
}

package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// Orphan is a complete object with Cairn's mark that belongs to no replica. A row goes only after its node has reported
// that the object is absent or released, so an orphan with data comes from a node that was removed by force, or from a
// cluster whose state was restored from a backup. Both may hold the only copy of somebody's files: it is kept and shown,
// and an operator decides.
type Orphan struct {
	Replica   cairn.ReplicaID
	Pool      cairn.PoolID
	Size      int64
	Snapshots int
}

// Orphans returns the objects that belong to no replica of the view. The view must be linearizable and read after the
// objects were listed: a row is there before its object, so an object that was listed and has no row later has lost it.
func Orphans(v *fsm.View, objects []drivers.Object) []cairn.ReplicaID {
	var ids []cairn.ReplicaID
	for _, object := range objects {
		if v.Replica(object.ID) == nil {
			ids = append(ids, object.ID)
		}
	}
	return ids
}

// Orphans lists the orphans that were found and kept, in order of ID.
func (a *Actor) Orphans() []Orphan {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := slices.Sorted(maps.Keys(a.orphans))
	list := make([]Orphan, len(ids))
	for i, id := range ids {
		list[i] = a.orphans[id]
	}
	return list
}

// gone deals with a replica that has no row: nothing of it is served, a half-made object is removed, and so is the clone of a
// drill that does not run any more; every other complete one is kept as an orphan. It runs under the actor's lock like everything else that touches the replica.
func (p *pass) gone(ctx context.Context) error {
	if p.drilling(p.id) {
		return nil
	}
	if err := p.withdraw(ctx); err != nil {
		return err
	}
	if !p.confirmed {
		return errUnconfirmed
	}
	var problems []error
	for _, id := range slices.Sorted(maps.Keys(p.cfg.Pools)) {
		if err := p.goneFrom(ctx, id); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func (p *pass) goneFrom(ctx context.Context, id cairn.PoolID) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StepTimeout)
	defer cancel()
	pool := p.cfg.Pools[id]
	object, err := pool.Stat(ctx, p.id)
	_, left := drilled(p.id)
	switch {
	case errors.Is(err, cairn.ErrNotFound):
		p.forgetOrphan(id)
		return nil
	case err != nil:
		return poolError("stat", err)
	case object.Ready && !left:
		p.keepOrphan(Orphan{Replica: p.id, Pool: id, Size: object.Size, Snapshots: len(object.Snapshots)})
		return nil
	}
	actors.Doing(ctx, "delete what is half made")
	if err := pool.Delete(ctx, p.id, object.Epoch); err != nil {
		return fmt.Errorf("delete half-made object without a row: %w", err)
	}
	p.cfg.Logger.Info("removed what a replica that no longer exists, or a drill, has left", "replica", p.id, "pool", id)
	return nil
}

func (a *Actor) keepOrphan(o Orphan) {
	a.mu.Lock()
	known := a.orphans[o.Replica] == o
	a.orphans[o.Replica] = o
	a.mu.Unlock()
	if !known {
		a.cfg.Logger.Warn("object belongs to no replica; it is kept: copy what is needed from it, then remove it from the pool by hand",
			"replica", o.Replica, "pool", o.Pool, "size", cairn.FormatSize(o.Size), "snapshots", o.Snapshots)
	}
}

func (p *pass) forgetOrphan(pool cairn.PoolID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.orphans[p.id].Pool == pool {
		delete(p.orphans, p.id)
	}
}

// withdraw stops serving the replica and its snapshots through every exporter.
func (p *pass) withdraw(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StepTimeout)
	defer cancel()
	for _, protocol := range slices.Sorted(maps.Keys(p.served)) {
		table := p.served[protocol]
		list, err := table.of(ctx, p.id)
		if err != nil {
			return fmt.Errorf("exports: %w", err)
		}
		for _, spec := range list {
			if err := table.unexport(ctx, spec.ID); err != nil {
				return fmt.Errorf("unexport: %w", err)
			}
		}
	}
	return nil
}

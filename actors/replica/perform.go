package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// deadline is how long the step may take. Of a call that is cut off the outcome is unknown; the next look tells.
func (p *pass) deadline(op Op) time.Duration {
	switch op {
	case OpCreate, OpUnexport, OpRelease:
		return p.cfg.StepTimeout
	}
	size := p.want.Replica.Want.Size
	if p.have.Object != nil {
		size = max(size, p.have.Object.Size)
	}
	seconds := min(size/slowestCopy, int64(longestCopy/time.Second))
	return p.cfg.StepTimeout + time.Duration(seconds)*time.Second
}

// perform takes one step.
func (p *pass) perform(ctx context.Context, s Step) error {
	if s.Op == OpPull { // may take as long as there is progress, which the stream watches
		return p.pull(ctx)
	}
	if s.Op == OpCopy {
		return p.copySnapshot(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, p.deadline(s.Op))
	defer cancel()
	switch s.Op {
	case OpExport, OpUnexport:
		return p.serve(ctx, s)
	case OpSync:
		return p.cut(ctx)
	case OpPrune:
		return p.prune(ctx, *p.have.Object, p.kept(p.view, p.want.Replica, inOrder(p.have.Object.Snapshots)))
	case OpSnapshot, OpResize:
		return p.quiesced(ctx, s)
	}
	return p.change(ctx, s)
}

// cut cuts a sync point and tells the standbys' nodes. Its number follows that of the newest one of the epoch.
func (p *pass) cut(ctx context.Context) error {
	row := p.want.Replica
	next := SyncPoint{Epoch: row.Epoch, Seq: 1, At: p.cfg.Now()}
	if newest, ok := ParseSyncPoint(p.have.SyncPoint); ok && newest.Epoch == row.Epoch {
		next.Seq = newest.Seq + 1
	}
	if err := p.quiesced(ctx, Step{Op: OpSnapshot, Snapshot: next.ID()}); err != nil {
		return err
	}
	for _, standby := range p.want.Standbys {
		p.cfg.Hint(standby.Node, standby.ID)
	}
	return nil
}

// change calls the pool.
func (p *pass) change(ctx context.Context, s Step) error {
	row := p.want.Replica
	pool := p.cfg.Pools[row.Pool]
	switch s.Op {
	case OpCreate:
		_, err := pool.Create(ctx, p.createSpec())
		return err
	case OpDelete:
		return pool.Delete(ctx, row.ID, row.Epoch)
	case OpClone:
		if d, ok := pool.(drivers.Cloner); ok {
			_, err := d.Clone(ctx, p.createSpec(), row.Want.SourceReplica, row.Want.Source)
			return err
		}
	case OpPart:
		return p.part(ctx, pool)
	case OpAdopt:
		if d, ok := pool.(drivers.Adopter); ok {
			_, err := d.Adopt(ctx, p.createSpec(), row.Want.Adopt)
			return err
		}
	case OpRelease:
		if d, ok := pool.(drivers.Adopter); ok {
			return d.Release(ctx, row.ID, row.Epoch, row.Want.Release)
		}
	case OpResize:
		if d, ok := pool.(drivers.Resizer); ok {
			return d.Resize(ctx, row.ID, row.Epoch, row.Want.Size)
		}
	case OpSeal:
		if d, ok := pool.(drivers.Sealer); ok {
			return d.Seal(ctx, row.ID, row.Epoch)
		}
	case OpUnseal:
		if d, ok := pool.(drivers.Sealer); ok {
			return d.Unseal(ctx, row.ID, row.Epoch)
		}
	case OpRevert:
		if p.have.AtRevert { // certainly nothing differs
			return nil
		}
		if d, ok := pool.(drivers.Reverter); ok {
			return d.Revert(ctx, row.ID, row.Epoch, p.have.head(s.Snapshot))
		}
	case OpSnapshot:
		if d, ok := pool.(drivers.Snapshotter); ok {
			_, err := d.CreateSnapshot(ctx, row.ID, row.Epoch, s.Snapshot)
			return err
		}
	case OpAdoptSnapshot:
		if d, ok := pool.(drivers.SnapshotAdopter); ok {
			return d.AdoptSnapshot(ctx, row.ID, row.Epoch, s.Snapshot, s.Object)
		}
	case OpReleaseSnapshot:
		if d, ok := pool.(drivers.SnapshotAdopter); ok {
			return d.ReleaseSnapshot(ctx, row.ID, row.Epoch, s.Snapshot, s.Object)
		}
	case OpDeleteSnapshot:
		if d, ok := pool.(drivers.Snapshotter); ok {
			return d.DeleteSnapshot(ctx, row.ID, row.Epoch, s.Snapshot)
		}
	}
	return fmt.Errorf("the pool cannot do this: %w", cairn.ErrNotSupported)
}

func (p *pass) createSpec() drivers.CreateSpec {
	row := p.want.Replica
	return drivers.CreateSpec{ID: row.ID, Epoch: row.Epoch, Size: row.Want.Size, Specs: p.want.Specs}
}

// quiesced holds writers while a pool without atomic snapshots cuts one, and while a size that the exporter enforces gets
// smaller: what was written meanwhile would be half in the snapshot, or beyond the size. Without an exporter nobody writes.
func (p *pass) quiesced(ctx context.Context, s Step) error {
	exporter, ok := p.cfg.Exporters[p.want.Share.Protocol].(drivers.Quiescer)
	shrinks := s.Op == OpResize && p.have.Object.Size > p.want.Replica.Want.Size && p.have.Info.Enforcement == drivers.EnforcedByExporter
	tears := s.Op == OpSnapshot && !p.have.Info.AtomicSnapshots
	if !ok && tears && p.served[p.want.Share.Protocol] != nil {
		return fmt.Errorf("clients of %s cannot be held meanwhile, and this pool's snapshots take a while: %w", p.want.Share.Protocol, cairn.ErrNotSupported)
	}
	if !ok || !shrinks && !tears {
		return p.change(ctx, s)
	}
	asked := time.Now()
	resume, err := exporter.Quiesce(ctx, drivers.ExportID{Replica: p.id})
	if err != nil {
		return fmt.Errorf("hold writers: %w", err)
	}
	defer resume()
	if err := p.change(ctx, s); err != nil {
		return err
	}
	resume()
	p.cfg.Logger.Info("writers were held", "replica", p.id, "share", p.want.Share.ID, "for", s.String(), "frozen", time.Since(asked))
	return nil
}

// serve calls the exporter. If it refuses the set of rules, the share is served with those that it took before, and the
// new ones are reported as not applied: one bad rule locks nobody else out.
func (p *pass) serve(ctx context.Context, s Step) error {
	table := p.served[p.want.Share.Protocol]
	if table == nil {
		return fmt.Errorf("this node has no exporter for %s: %w", p.want.Share.Protocol, cairn.ErrNotSupported)
	}
	if s.Op == OpUnexport {
		return table.unexport(ctx, drivers.ExportID{Replica: p.id, Snapshot: s.Snapshot})
	}
	locations, err := table.export(ctx, s.Export)
	refused := errors.Is(err, cairn.ErrInvalid) || errors.Is(err, cairn.ErrNotSupported)
	if proven := p.want.proven(s.Export.Rules); refused && len(proven) < len(s.Export.Rules) {
		p.refused = fmt.Errorf("%s: %w", s, err)
		spec := s.Export
		spec.Rules = proven
		locations, err = table.export(ctx, spec)
	}
	if err == nil {
		p.locations[s.Snapshot] = locations
	} else if s.Export.Standby {
		return fmt.Errorf("clients cannot read what this standby holds now: %w", err)
	}
	return err
}

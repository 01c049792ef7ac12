package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// What clients may read of a standby is never what it receives into, but a sync point that is complete: see DESIGN.md.

const (
	// shownMost bounds how many sync points a standby shows at a time: the newest, and older ones that requests still read. Where
	// snapshots may be full copies, shownCopies does.
	shownMost   = 64
	shownCopies = 4
	// shownFor is how many sync points later one that is still read is taken away: an hour at the default interval.
	shownFor = 360
)

// shows reports whether clients may read the replica while it is a standby, wherever the exporter can do that.
func (w *Want) shows() bool {
	r := w.Replica
	return w.Readable && r.Role == cairn.RoleStandby && r.Want.Presence == cairn.Present && r.Want.Keep == (cairn.Keep{})
}

// told reports whether clients have been told of what is exported in this role: locations of another one say nothing.
func (w *Want) told() bool {
	standby := w.Replica.Role == cairn.RoleStandby
	return slices.ContainsFunc(w.Replica.Have.Locations, func(l cairn.ExportLocation) bool { return l.ReadOnly == standby })
}

// standby is the specification by which a sync point is served.
func (w *Want) standby(snap drivers.SnapshotObject) drivers.ExportSpec {
	rules := slices.Clone(w.Rules)
	for i := range rules {
		rules[i].Level = cairn.AccessRO
	}
	return drivers.ExportSpec{
		ID: drivers.ExportID{Replica: w.Replica.ID, Snapshot: snap.ID}, Share: w.Share.ID, Root: snap.Root, Epoch: w.Replica.Epoch,
		ReadOnly: true, Standby: true, Rules: rules, Squash: w.Squash,
	}
}

// shown lists the points in time that a standby is to be read at: the newest sync point, and until that is served the one of
// before; besides, for a while, those that somebody has begun to read. Only those of the standby's own epoch: the active replica of today
// has cut them, so none is of a line that nobody follows any more.
func shown(w *Want, h *Have) (list wantedExportList) {
	if !w.shows() || !h.Shows {
		return nil
	}
	most := shownCopies
	if h.Info.AtomicSnapshots { // which share their blocks
		most = shownMost
	}
	newest, served := SyncPoint{}, false
	for _, id := range slices.Backward(syncPoints(inOrder(h.Object.Snapshots))) {
		point, _ := ParseSyncPoint(id)
		spec, isServed := h.export(id)
		switch {
		case point.Epoch != w.Replica.Epoch:
			continue
		case len(list) == 0:
			newest, served = point, isServed && spec.Epoch == w.Replica.Epoch
		case !isServed:
			continue
		case !served:
			served = true
		case !h.Reading[id] || len(list) == most || newest.Seq > point.Seq+shownFor:
			continue
		}
		list = append(list, wantedExport{spec: w.standby(*h.snapshot(id)), located: w.told() || len(list) > 0})
	}
	return list
}

// readers looks at what of a standby is being read.
func (p *pass) readers(ctx context.Context, have *Have) error {
	server, ok := p.cfg.Exporters[p.want.Share.Protocol].(drivers.StandbyServer)
	have.Shows = ok
	if !ok {
		return nil
	}
	have.Reading = make(map[cairn.SnapshotID]bool)
	for _, spec := range have.Served {
		if !spec.Standby {
			continue
		}
		used, err := server.InUse(ctx, spec.ID)
		if err != nil {
			return fmt.Errorf("exports: %w: %w", errExport, err)
		}
		have.Reading[spec.ID.Snapshot] = used
	}
	return nil
}

// shownAt is where the replica is served in its role: a standby by its sync points, which are all at one place.
func (p *pass) shownAt(before []cairn.ExportLocation) (at []cairn.ExportLocation) {
	if p.want.Replica.Role == cairn.RoleActive {
		return p.locationsOf("", before)
	}
	if !p.want.told() {
		before = nil
	}
	for _, spec := range p.have.Served {
		if spec.Standby && len(at) == 0 {
			at = p.locationsOf(spec.ID.Snapshot, before)
		}
	}
	return at
}

// showing keeps what clients read of a standby from changing while a snapshot is removed.
type showing struct {
	mu      sync.Mutex
	changed chan struct{} // something may be wanted otherwise
}

// nudge has the exports looked at. It does not block.
func (s *showing) nudge() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// keepShown looks after the exports of a standby while the pass is busy with a transfer, which may take hours: nobody who is locked out
// may go on reading that long. When stop returns it has ended.
func (p *pass) keepShown(ctx context.Context, s *showing) (stop func()) {
	if !p.want.shows() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.changed:
				p.show(ctx)
			}
		}
	})
	return func() {
		cancel()
		looking.Wait()
	}
}

// show brings the exports of a standby up to date by this node's own view, as the pass would. What fails is left to the pass.
func (p *pass) show(ctx context.Context) {
	view := p.cfg.Viewer.View()
	row := view.Replica(p.id)
	if !p.want.shows() || row == nil || row.Epoch != p.want.Replica.Epoch {
		return
	}
	beside := &pass{
		Actor: p.Actor, id: p.id, view: view, want: gather(view, row), locations: make(map[cairn.SnapshotID][]cairn.ExportLocation), done: make(map[stepKey]Step),
	}
	if err := p.undisturbed(func() error { return beside.serveAll(ctx) }); err != nil && ctx.Err() == nil {
		p.cfg.Logger.Warn("standby is not shown as it should be; it is tried again", "replica", p.id, "share", row.Share, "error", err)
	}
}

// serveAll takes the steps that concern exports, and no others.
func (p *pass) serveAll(ctx context.Context) (err error) {
	for range maxSteps {
		if p.have, err = p.look(ctx); err != nil || !p.have.ready() {
			return err
		}
		step, ok := p.next(planExports(p.want, p.have))
		if !ok {
			return nil
		}
		if err := p.serveInTime(ctx, step); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		p.done[step.key()] = step
	}
	return nil
}

func (p *pass) serveInTime(ctx context.Context, s Step) error {
	ctx, cancel := context.WithTimeout(ctx, p.deadline(s.Op))
	defer cancel()
	return p.serve(ctx, s)
}

// undisturbed does something while no export of the replica is changed beside the pass.
func (p *pass) undisturbed(do func() error) error {
	p.mu.Lock()
	running := p.pulls[p.id].showing
	p.mu.Unlock()
	if running != nil {
		running.mu.Lock()
		defer running.mu.Unlock()
	}
	return do()
}

// remove deletes a snapshot of a standby that has to go, whoever reads it.
func (p *pass) remove(ctx context.Context, pool drivers.Snapshotter, snap cairn.SnapshotID) error {
	return p.undisturbed(func() error {
		served, err := p.exports(ctx)
		if err != nil {
			return err
		}
		for _, spec := range served {
			if spec.ID.Snapshot != snap {
				continue
			}
			if err := p.serveInTime(ctx, Step{Op: OpUnexport, Snapshot: snap}); err != nil {
				return fmt.Errorf("unexport: %w", err)
			}
		}
		return pool.DeleteSnapshot(ctx, p.id, p.want.Replica.Epoch, snap)
	})
}

// outdated reports whether what is wanted of the replica has changed since the pass began: what the pass knows of its rules is old, too.
func (p *pass) outdated(v *fsm.View) error {
	row := v.Replica(p.id)
	if !p.want.shows() || row != nil && row.Generation == p.want.Replica.Generation {
		return nil
	}
	return errors.Join(errChanged, cairn.ErrStale)
}

package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Have is what a look found.
type Have struct {
	Object *drivers.Object // nil: certainly absent
	Served []drivers.ExportSpec
	Info   drivers.Info
	// Seals: the pool can seal. Due: an active replica may be cut again, by its interval.
	Seals, Due bool
	// Behind is what an active replica has written since its newest sync point, which is SyncPoint; "" if there is none.
	SyncPoint cairn.SnapshotID
	Behind    int64
	Surplus   bool // it has sync points that nobody needs
	Unparted  bool // it has been received, and has the snapshot of its source still: it is not ready
	// AtRevert: the data certainly is as what Want.Revert means. Ahead: there may be data behind Want.Keep.Base.
	AtRevert, Ahead bool
	// Shows: the exporter can serve standbys. Reading are the sync points that somebody is reading.
	Shows   bool
	Reading map[cairn.SnapshotID]bool
}

// look asks the pool and the exporters. Nothing is remembered from earlier passes but what cannot change behind our back:
// how the pool is configured, and what the exporters of this process were told.
func (p *pass) look(ctx context.Context) (*Have, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StepTimeout)
	defer cancel()
	id := p.want.Replica.Pool
	pool := p.cfg.Pools[id]
	if pool == nil {
		_, name := id.Split()
		return nil, fmt.Errorf("pool %s: not configured on this node: %w", name, errPool)
	}
	have := &Have{}
	var err error
	if have.Info, err = p.info(ctx, id, pool); err != nil {
		return nil, poolError("info", err)
	}
	switch object, err := pool.Stat(ctx, p.id); {
	case err == nil:
		have.Object = &object
		have.Unparted = p.want.Copied && object.Ready && have.snapshot(p.want.Replica.Want.Source) != nil
	case !errors.Is(err, cairn.ErrNotFound):
		return nil, poolError("stat", err)
	}
	if have.Served, err = p.exports(ctx); err != nil {
		return nil, err
	}
	if err := p.readers(ctx, have); err != nil {
		return nil, err
	}
	_, have.Seals = pool.(drivers.Sealer)
	if sender, ok := pool.(drivers.Sender); ok && have.ready() {
		if err := p.lookAtChanges(ctx, sender, have); err != nil {
			return nil, poolError("changes", err)
		}
	}
	return have, nil
}

// lookAtChanges asks what has been written since the snapshots that matter. Of a share with one replica none does, unless it
// is to be reverted.
func (p *pass) lookAtChanges(ctx context.Context, sender drivers.Sender, have *Have) (err error) {
	row := p.want.Replica
	changed := func(since cairn.SnapshotID) int64 {
		snap := have.snapshot(since)
		if err != nil || snap == nil || !snap.Ready {
			return 1 // there may be something
		}
		var n int64
		n, err = sender.Changed(ctx, p.id, since)
		return n
	}
	if row.Want.Revert != "" {
		have.AtRevert = changed(have.head(row.Want.Revert)) == 0
	}
	if row.Want.Keep != (cairn.Keep{}) {
		have.Ahead = changed(row.Want.Keep.Base) > 0
	}
	if len(p.want.Standbys) > 0 {
		source := inOrder(have.Object.Snapshots)
		have.SyncPoint = newestSyncPoint(source)
		have.Surplus = len(syncPoints(source)) > len(p.kept(p.view, row, source))
		point, _ := ParseSyncPoint(have.SyncPoint)
		// A failover goes back to a sync point. One that follows a snapshot of a user's at once lets it go back no further than that.
		overtaken := len(source) > 0 && source[len(source)-1] != have.SyncPoint
		if have.Due = !p.untold() && (p.due || overtaken || row.Want.Sealed || point.Epoch != row.Epoch); have.Due {
			have.Behind = changed(have.SyncPoint)
		}
	}
	return err
}

// head is the snapshot that the data must be as when a revert is wanted. A standby may follow its active replica for a moment after its
// node has told the leader how far it is, and prune the sync point that it then takes over from. What it has instead is its newest one, of
// whatever epoch: what it told was its newest until then, so a newer one came from the active replica that the leader asked about. While
// the standby counts as in sync nothing is rolled back, so that one goes on from the lost one.
func (h *Have) head(wanted cairn.SnapshotID) cairn.SnapshotID {
	_, told := ParseSyncPoint(wanted)
	newest := newestSyncPoint(inOrder(h.Object.Snapshots))
	if !told || h.snapshot(wanted) != nil || newest < wanted {
		return wanted
	}
	return newest
}

// untold reports whether this pass has made an export that clients do not know of yet. Telling them comes before a sync point,
// which takes a while and holds writers: of many shares that fail over together, the last would wait for all the others' cuts.
func (p *pass) untold() bool {
	return len(p.locations[""]) > 0 && !p.want.told()
}

// intervalOver reports whether an active replica may be cut again, and begins a new interval when it may.
func (p *pass) intervalOver() bool {
	if len(p.want.Standbys) == 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	if last, ok := p.cuts[p.id]; ok && now.Sub(last) < p.want.Interval {
		return false
	}
	p.cuts[p.id] = now
	return true
}

// info is read once per pool: all of it but the free bytes, which the actor does not use, is configuration.
func (a *Actor) info(ctx context.Context, id cairn.PoolID, pool drivers.Pool) (drivers.Info, error) {
	a.mu.Lock()
	info, ok := a.infos[id]
	a.mu.Unlock()
	if ok {
		return info, nil
	}
	info, err := pool.Info(ctx)
	if err != nil {
		return info, err
	}
	a.mu.Lock()
	a.infos[id] = info
	a.mu.Unlock()
	return info, nil
}

// exports lists what the share's exporter serves of this replica.
func (p *pass) exports(ctx context.Context) ([]drivers.ExportSpec, error) {
	table := p.served[p.want.Share.Protocol]
	if table == nil {
		return nil, nil
	}
	list, err := table.of(ctx, p.id)
	if err != nil {
		return nil, fmt.Errorf("exports: %w: %w", errExport, err)
	}
	return list, nil
}

// export finds what is served of the replica, or of its snapshot.
func (h *Have) export(snapshot cairn.SnapshotID) (drivers.ExportSpec, bool) {
	for _, spec := range h.Served {
		if spec.ID.Snapshot == snapshot {
			return spec, true
		}
	}
	return drivers.ExportSpec{}, false
}

// snapshot finds the snapshot on the pool; nil if it is certainly not there.
func (h *Have) snapshot(id cairn.SnapshotID) *drivers.SnapshotObject {
	if h.Object == nil {
		return nil
	}
	i := slices.IndexFunc(h.Object.Snapshots, func(s drivers.SnapshotObject) bool { return s.ID == id })
	if i < 0 {
		return nil
	}
	return &h.Object.Snapshots[i]
}

// ready reports whether the object is there and complete.
func (h *Have) ready() bool { return h.Object != nil && h.Object.Ready && !h.Unparted }

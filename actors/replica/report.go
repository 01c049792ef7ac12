package replica

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// report tells the state machine what was found, unless its rows say so already. A fault is thus reported once, however
// often it is met again.
func (p *pass) report(ctx context.Context) error {
	row := p.want.Replica
	failure := p.failure()
	r := &fsm.ReportReplica{
		Node: p.cfg.Node, Replica: p.id, Generation: row.Generation, Epoch: row.Epoch,
		Have:      p.replicaHave(failure),
		RuleFault: p.fault(cairn.Fault{}, p.refused),
	}
	if p.looked == nil && (p.have.ready() || row.Want.Presence != cairn.Present) {
		r.Snapshots = p.snapshotHaves()
	}
	p.replication(&r.Have, failure)
	inSync := row.Role != cairn.RoleStandby || r.Have.InSync == (row.State == cairn.ReplicaInSync)
	if row.Have.Generation == row.Generation && sameHave(row.Have, r.Have) && inSync && len(r.Snapshots) == 0 && !p.rulesAnswered(failure) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.StepTimeout)
	defer cancel()
	meta := fsm.Meta{At: p.cfg.Now().UnixNano(), Actor: "node/" + string(p.cfg.Node)}
	// failpoint: reporting
	result, err := p.cfg.Applier.Apply(ctx, meta, r)
	// failpoint: reported
	if err = cmp.Or(err, result.Err); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// rulesAnswered reports whether the state machine learns something about access rules from this pass.
func (p *pass) rulesAnswered(failure error) bool {
	switch w := p.want; {
	case failure != nil: // what is not served enforces nothing
		return false
	case p.refused != nil:
		return w.InFlight
	default:
		return w.InFlight || w.Refused || w.Denying
	}
}

// failure is what keeps the replica itself from being what is wanted: the first in the order of work.
func (p *pass) failure() error {
	switch keys := p.failures(); {
	case p.looked != nil:
		return p.looked
	case p.planned != nil:
		return p.planned
	case len(keys) > 0 && p.want.Replica.Want.Presence != cairn.Present:
		return p.failed[keys[0]] // whatever it is, it keeps the replica from going
	}
	for _, op := range []Op{OpCreate, OpClone, OpAdopt, OpUnexport, OpSeal, OpUnseal, OpResize, OpPull} {
		if err := p.failed[stepKey{op, ""}]; err != nil {
			return err
		}
	}
	for _, key := range []stepKey{{OpCopy, p.want.Replica.Want.Source}, {OpPart, p.want.Replica.Want.Source}, {OpRevert, p.want.Replica.Want.Revert}} {
		if err := p.failed[key]; err != nil {
			return err
		}
	}
	if err := p.failed[stepKey{OpExport, ""}]; err != nil {
		return fmt.Errorf("%w: %w", errExport, err)
	}
	return nil
}

// failures lists the steps that failed, in a fixed order.
func (p *pass) failures() []stepKey {
	keys := make([]stepKey, 0, len(p.failed))
	for key := range p.failed {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b stepKey) int {
		return cmp.Or(cmp.Compare(a.op, b.op), cmp.Compare(a.snapshot, b.snapshot))
	})
	return keys
}

// trouble is the error of the pass: any failure at all, so that it is tried again.
func (p *pass) trouble() error {
	if err := p.failure(); err != nil {
		return err
	}
	if p.refused != nil {
		return p.refused
	}
	for _, key := range p.failures() {
		return p.failed[key]
	}
	if p.looked == nil && p.have.ready() {
		for _, s := range p.want.Snapshots {
			if err := p.lost(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// replicaHave is what was found of the replica. What could not be looked at is as it was last reported.
func (p *pass) replicaHave(failure error) cairn.ReplicaHave {
	row := p.want.Replica
	have := row.Have
	have.Generation = 0 // the state machine's to set
	have.Fault = p.fault(row.Have.Fault, failure)
	if p.looked != nil {
		return have
	}
	switch object := p.have.Object; {
	case object != nil && p.have.ready():
		have.Presence, have.Size = cairn.Present, object.Size
	case row.Want.Presence == cairn.Released && object == nil:
		have.Presence, have.Size = cairn.Released, 0
	case row.Want.Presence == cairn.Absent && object == nil:
		have.Presence, have.Size = cairn.Absent, 0
	case row.Have.Presence == cairn.Present:
		// Missing or damaged. It stays on record as one that was there, or the next pass would make it again, empty.
	default:
		have.Presence, have.Size = cairn.Absent, 0
	}
	have.Locations = p.shownAt(row.Have.Locations)
	return have
}

// locationsOf is where the export made in this pass is, or the one of before if it is served still.
func (p *pass) locationsOf(snapshot cairn.SnapshotID, before []cairn.ExportLocation) []cairn.ExportLocation {
	if _, ok := p.have.export(snapshot); !ok {
		return nil
	}
	if locations, ok := p.locations[snapshot]; ok {
		return locations
	}
	return before
}

// snapshotHaves lists the snapshots that are not as their rows say.
func (p *pass) snapshotHaves() []fsm.SnapshotHave {
	var list []fsm.SnapshotHave
	for _, s := range p.want.Snapshots {
		next := fsm.SnapshotHave{Snapshot: s.Snapshot, Have: cairn.Absent, Locations: p.locationsOf(s.Snapshot, s.Locations)}
		if object := p.have.snapshot(s.Snapshot); object != nil && (object.Ready || s.Want != cairn.Present) {
			next.Have = cairn.Present
		}
		if p.lost(s) != nil {
			next.Have = cairn.Present // on record as one that was there: it is never cut again
		}
		next.Fault = p.fault(s.Fault, p.snapshotFailure(s))
		before := cmp.Or(s.Have, cairn.Absent)
		if next.Have != before || next.Fault != s.Fault || !slices.Equal(next.Locations, s.Locations) ||
			next.Have == cairn.Absent && s.Want != cairn.Present {
			list = append(list, next)
		}
	}
	return list
}

func (p *pass) snapshotFailure(s WantSnapshot) error {
	if err := p.lost(s); err != nil {
		return err
	}
	for _, op := range []Op{OpSnapshot, OpAdoptSnapshot, OpUnexport, OpDeleteSnapshot, OpReleaseSnapshot} {
		if err := p.failed[stepKey{op, s.Snapshot}]; err != nil {
			return err
		}
	}
	if err := p.failed[stepKey{OpExport, s.Snapshot}]; err != nil {
		return fmt.Errorf("%w: %w", errExport, err)
	}
	return nil
}

// lost says that a snapshot which was there and is wanted is not there any more. What the active replica feeds a standby
// with is not lost: it is fetched again, and until then it is missing.
func (p *pass) lost(s WantSnapshot) error {
	object := p.have.snapshot(s.Snapshot)
	if s.Want != cairn.Present || s.Have != cairn.Present || object != nil && object.Ready || p.want.Replica.Role == cairn.RoleStandby && !s.Diverged {
		return nil
	}
	return fmt.Errorf("snapshot is gone from the pool: %w", cairn.ErrNotFound)
}

// replication is what the state machine has to know to promote. A standby that has merely followed is no news.
func (p *pass) replication(have *cairn.ReplicaHave, failure error) {
	row, h := p.want.Replica, p.have
	have.Sealed, have.Synced, have.InSync = "", row.Have.Synced, false
	if p.looked != nil || !h.ready() {
		have.Synced = ""
		return
	}
	_, isServed := h.export("")
	still := !isServed && (h.Object.Sealed || !h.Seals) && failure == nil
	if keep := row.Want.Keep; keep != (cairn.Keep{}) && still {
		snap := h.snapshot(keep.Snapshot)
		if have.Diverged = snap != nil && snap.Ready; have.Diverged || !h.Ahead {
			have.Kept = keep.Snapshot
		}
	}
	newest := newestSyncPoint(inOrder(h.Object.Snapshots))
	switch row.Role {
	case cairn.RoleActive:
		if row.Want.Sealed && still && h.Due && h.Behind == 0 {
			have.Sealed = newest
		}
	case cairn.RoleStandby:
		if row.Want.SyncTo != "" && newest != row.Have.Synced {
			have.Synced = newest
		}
		have.InSync = failure == nil && (p.inSync || p.source != nil && row.State == cairn.ReplicaInSync)
	}
}

func sameHave(a, b cairn.ReplicaHave) bool {
	return a.Presence == b.Presence && a.Size == b.Size && a.Fault == b.Fault && slices.Equal(a.Locations, b.Locations) &&
		a.Sealed == b.Sealed && a.Synced == b.Synced && a.Kept == b.Kept
}

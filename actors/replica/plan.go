package replica

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
)

// Op is one verb of the driver contract.
type Op string

// The steps that a replica's actor takes.
const (
	OpCreate         Op = "create"
	OpClone          Op = "clone"
	OpCopy           Op = "copy"
	OpPart           Op = "part from"
	OpAdopt          Op = "adopt"
	OpResize         Op = "resize"
	OpRevert         Op = "revert"
	OpSnapshot       Op = "snapshot"
	OpDeleteSnapshot Op = "delete snapshot"
	// Of snapshots that somebody else has cut.
	OpAdoptSnapshot   Op = "adopt snapshot"
	OpReleaseSnapshot Op = "release snapshot"
	OpExport          Op = "export"
	OpUnexport        Op = "unexport"
	OpDelete          Op = "delete"
	OpRelease         Op = "release"
	OpSeal            Op = "seal"
	OpUnseal          Op = "unseal"
	OpSync            Op = "cut a sync point"
	OpPull            Op = "pull"
	OpPrune           Op = "prune sync points"
)

// changesData: the step is taken only on the word of a linearizable view. Exports are not: a share goes on being served,
// and a client goes on being locked out, while the cluster cannot decide anything.
func (op Op) changesData() bool { return op != OpExport && op != OpUnexport }

// leavesNothing: that the step is planned again does not mean that it had no effect. After a revert there is nothing to look
// at; an export may be repeated only for its locations; clients go on writing behind a sync point; one that is being sent
// cannot be pruned.
func (op Op) leavesNothing() bool {
	return op == OpRevert || op == OpExport || op == OpSync || op == OpPull || op == OpPrune
}

// Step is one idempotent driver call.
type Step struct {
	Op       Op
	Snapshot cairn.SnapshotID   // of copy, part from, snapshot, delete, adopt and release snapshot, revert, and of the export of a snapshot
	Object   string             // of adopt and release snapshot: the name that is not ours
	Export   drivers.ExportSpec // of export
}

// String renders "export", "revert to snapshot 0190…".
func (s Step) String() string {
	switch {
	case s.Snapshot == "":
		return string(s.Op)
	case s.Op == OpCopy || s.Op == OpPart:
		return fmt.Sprintf("%s snapshot %s", s.Op, s.Snapshot)
	case s.Op == OpRevert:
		return "revert to snapshot " + string(s.Snapshot)
	case s.Op == OpExport || s.Op == OpUnexport:
		return fmt.Sprintf("%s snapshot %s", s.Op, s.Snapshot)
	}
	return fmt.Sprintf("%s %s", s.Op, s.Snapshot)
}

type stepKey struct {
	op       Op
	snapshot cairn.SnapshotID
}

func (s Step) key() stepKey { return stepKey{s.Op, s.Snapshot} }

// Plan returns the steps that can be taken now to get from what is there to what is wanted. None of them needs another one
// of the same plan to succeed; what must come later is in the plan that follows the next look. The error says why the
// replica cannot become what is wanted by any step. Pure.
//
// A revert is planned whenever one is wanted, whether or not it has been done already, because a crash between the revert
// and the report leaves no way to tell that is not as good as doing it again. That is safe because the share is unexported
// first and stays so until the state machine has taken the wish away in answer to the report: between the first revert
// and the last repetition nobody could write, so the repetition destroys nothing that anybody was told is stored.
func Plan(w *Want, h *Have) ([]Step, error) {
	switch w.Replica.Want.Presence {
	case cairn.Absent:
		return planRemoval(h, OpDelete), nil
	case cairn.Released:
		return planRemoval(h, OpRelease), nil
	}
	was := w.Replica.Have.Presence == cairn.Present
	switch {
	case !h.ready() && w.Replica.Role == cairn.RoleStandby:
		// Also if it was complete before: the active one has everything, and feeds it anew.
		return append(unexportAll(h), Step{Op: OpPull}), nil
	case h.Object == nil && was:
		return unexportAll(h), fmt.Errorf("dataset is gone from the pool; it is not made again, for that would hide the loss: %w", cairn.ErrNotFound)
	case h.Object != nil && h.Object.Epoch > w.Replica.Epoch:
		return nil, fmt.Errorf("object has epoch %d, this node knows %d: %w", h.Object.Epoch, w.Replica.Epoch, cairn.ErrStale)
	case !h.ready() && was:
		return unexportAll(h), fmt.Errorf("dataset was complete and is not any more: %w", cairn.ErrCorrupt)
	case !h.ready():
		return []Step{planCreation(w, h)}, nil
	}
	steps := planExports(w, h)
	steps = append(steps, planSeal(w, h)...)
	if w.Replica.Want.Keep != (cairn.Keep{}) {
		return append(steps, planKeep(w, h)...), nil
	}
	steps = append(steps, planChange(w, h)...)
	steps = append(steps, planSnapshots(w, h)...)
	return append(steps, planSync(w, h)...), nil
}

// planSeal makes the pool itself refuse writes to what nobody may write to, and take them again before it is served.
func planSeal(w *Want, h *Have) []Step {
	_, isServed := h.export("")
	switch {
	case w.serves() && h.Object.Sealed:
		return []Step{{Op: OpUnseal}}
	case !w.writable() && h.Seals && !h.Object.Sealed && !isServed:
		return []Step{{Op: OpSeal}}
	}
	return nil
}

// planKeep puts aside what no other replica may have. Until the state machine has answered the report of that, nothing else is
// done to the replica, whatever its role is by now.
func planKeep(w *Want, h *Have) []Step {
	_, isServed := h.export("")
	keep := w.Replica.Want.Keep
	if snap := h.snapshot(keep.Snapshot); isServed || h.Seals && !h.Object.Sealed || !h.Ahead || snap != nil && snap.Ready {
		return nil
	}
	return []Step{{Op: OpSnapshot, Snapshot: keep.Snapshot}}
}

// planSync lets an active replica cut what its standbys follow, and a standby follow.
func planSync(w *Want, h *Have) []Step {
	_, isServed := h.export("")
	row := w.Replica
	if row.Role == cairn.RoleActive {
		still := !row.Want.Sealed || !isServed && (h.Object.Sealed || !h.Seals) // the last one is cut when nobody writes
		// The first one of an epoch is cut in any case: then no sync point of an older line is newer than it.
		point, _ := ParseSyncPoint(h.SyncPoint)
		if len(w.Standbys) > 0 && row.Want.Revert == "" && still && h.Due && (point.Epoch != row.Epoch || h.Behind > 0) {
			return []Step{{Op: OpSync}}
		}
		if h.Surplus && h.Due && row.Want.Revert == "" { // nothing goes that the data may have to go back to
			return []Step{{Op: OpPrune}}
		}
		return nil
	}
	if isServed || h.Seals && !h.Object.Sealed {
		return nil
	}
	return []Step{{Op: OpPull}}
}

func planCreation(w *Want, h *Have) Step {
	switch want := w.Replica.Want; {
	case want.Adopt != "":
		return Step{Op: OpAdopt}
	case h.Unparted:
		return Step{Op: OpPart, Snapshot: want.Source}
	case w.Copied:
		return Step{Op: OpCopy, Snapshot: want.Source}
	case want.Source != "":
		return Step{Op: OpClone}
	}
	return Step{Op: OpCreate}
}

// planRemoval: nobody is served, then no snapshots, then nothing. A released object that is absent has been released, or
// was missing before; either way Cairn has let go of it.
func planRemoval(h *Have, last Op) []Step {
	if steps := unexportAll(h); len(steps) > 0 {
		return steps
	}
	if h.Object == nil {
		return nil
	}
	var steps []Step
	for _, s := range h.Object.Snapshots {
		_, own := ParseSyncPoint(s.ID)                   // cut for standbys, which are gone: nobody else lets go of it
		if h.Object.Ready && (last == OpDelete || own) { // of what is half made or half removed, delete takes the rest with it
			steps = append(steps, Step{Op: OpDeleteSnapshot, Snapshot: s.ID})
		}
	}
	if len(steps) > 0 {
		return steps
	}
	return []Step{{Op: last}}
}

func unexportAll(h *Have) []Step {
	var steps []Step
	for _, spec := range h.Served {
		steps = append(steps, Step{Op: OpUnexport, Snapshot: spec.ID.Snapshot})
	}
	return steps
}

// planExports withdraws what nobody may reach any more, then serves what is not served as it should be. It comes first
// in a plan: access is changed before anything that may take long. What a standby has shown until now goes last: somebody may be
// reading it, and in another role or epoch the guard refuses it in any case.
func planExports(w *Want, h *Have) []Step {
	wanted := wantedExports(w, h)
	if h.Object.Sealed {
		wanted = slices.DeleteFunc(wanted, func(e wantedExport) bool { return e.spec.ID.Snapshot == "" })
	}
	var steps, last []Step
	for _, spec := range h.Served {
		withdraw := Step{Op: OpUnexport, Snapshot: spec.ID.Snapshot}
		switch _, ok := wanted.find(spec.ID.Snapshot); {
		case ok:
		case spec.Standby:
			last = append(last, withdraw)
		default:
			steps = append(steps, withdraw)
		}
	}
	for _, e := range wanted {
		if spec, ok := h.export(e.spec.ID.Snapshot); !ok || !sameExport(spec, e.spec) || !e.located {
			steps = append(steps, Step{Op: OpExport, Snapshot: e.spec.ID.Snapshot, Export: e.spec})
		}
	}
	return append(steps, last...)
}

// planChange takes back the data, or changes the size.
func planChange(w *Want, h *Have) []Step {
	want := w.Replica.Want
	served, isServed := h.export("")
	if want.Revert != "" {
		if isServed {
			return nil
		}
		return []Step{{Op: OpRevert, Snapshot: want.Revert}}
	}
	if h.Object.Size == want.Size {
		return nil
	}
	// An exporter that enforces the size must know the smaller one first, else a write could pass the old limit after the
	// pool has checked that everything fits.
	if want.Size < h.Object.Size && isServed && served.EnforceSize && served.Size > want.Size {
		return nil
	}
	return []Step{{Op: OpResize}}
}

// planSnapshots cuts what is missing for the first time and removes what is not wanted. A snapshot that was there and is
// gone is a fault, never cut again: it would be another point in time. A complete snapshot that nobody knows is kept; a
// half-made one is what a crash left.
func planSnapshots(w *Want, h *Have) []Step {
	var steps []Step
	known := make(map[cairn.SnapshotID]bool)
	for _, s := range w.Snapshots {
		known[s.Snapshot] = true
		_, isServed := h.export(s.Snapshot)
		switch object := h.snapshot(s.Snapshot); {
		case s.Want == cairn.Absent && object != nil && !isServed:
			steps = append(steps, Step{Op: OpDeleteSnapshot, Snapshot: s.Snapshot})
		case s.Want == cairn.Released && object != nil && !isServed:
			steps = append(steps, Step{Op: OpReleaseSnapshot, Snapshot: s.Snapshot, Object: s.Object})
		case w.Replica.Role == cairn.RoleStandby: // they arrive from the active one
		case s.Want == cairn.Present && s.Have != cairn.Present && (object == nil || !object.Ready):
			op := OpSnapshot
			if s.Object != "" {
				op = OpAdoptSnapshot
			}
			steps = append(steps, Step{Op: op, Snapshot: s.Snapshot, Object: s.Object})
		}
	}
	for _, object := range h.Object.Snapshots {
		if !known[object.ID] && !object.Ready && object.ID != w.Replica.Want.Keep.Snapshot {
			steps = append(steps, Step{Op: OpDeleteSnapshot, Snapshot: object.ID})
		}
	}
	return steps
}

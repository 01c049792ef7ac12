package fsm

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
)

// SetSize extends or shrinks a share, as Kind says: one that was decided about an older size never goes the other way. Quota
// and capacity for an extension are taken at once; those of a shrink are given back when it has happened.
type SetSize struct {
	ID   cairn.ShareID
	Kind cairn.TaskKind
	Size int64
	Task cairn.TaskID
}

// ResizeShare is SetSize in whichever direction it turns out to be. It is in older logs; nobody proposes it any more.
type ResizeShare struct {
	ID   cairn.ShareID
	Size int64
	Task cairn.TaskID
}

// RevertShare takes a share back to its newest snapshot.
type RevertShare struct {
	ID       cairn.ShareID
	Snapshot cairn.SnapshotID
	Task     cairn.TaskID
}

// UnmanageShare forgets a share and leaves its data in the pool under the name Release, without Cairn's mark.
type UnmanageShare struct {
	ID      cairn.ShareID
	Task    cairn.TaskID
	Release string
}

// StopTask ends a task of a share where that is possible: a resize that has not happened, a promotion whose roles have not
// changed, or a manage, which leaves the object under its own name.
type StopTask struct {
	Share cairn.ShareID
	Task  cairn.TaskID
}

// CancelTask is StopTask of whichever task is running. It is in older logs; nobody proposes it any more.
type CancelTask struct{ Share cairn.ShareID }

func (*SetSize) op() Op           { return OpSetSize }
func (c *SetSize) target() string { return "share/" + string(c.ID) }

func (*ResizeShare) op() Op           { return OpResizeShare }
func (c *ResizeShare) target() string { return "share/" + string(c.ID) }

func (*RevertShare) op() Op           { return OpRevertShare }
func (c *RevertShare) target() string { return "share/" + string(c.ID) }

func (*UnmanageShare) op() Op           { return OpUnmanageShare }
func (c *UnmanageShare) target() string { return "share/" + string(c.ID) }

func (*StopTask) op() Op           { return OpStopTask }
func (c *StopTask) target() string { return "share/" + string(c.Share) }

func (*CancelTask) op() Op           { return OpCancelTask }
func (c *CancelTask) target() string { return "share/" + string(c.Share) }

// startTask records the task that holds the share's lock from now on. A share remembers only its newest task.
func (tx *Tx) startTask(s *cairn.Share, t *cairn.Task) {
	t.Share, t.Project, t.State, t.StartedAt = s.ID, s.Project, cairn.TaskRunning, tx.meta.At
	put(tx, tx.tasks, t)
}

// endTask gives the lock back.
func (tx *Tx) endTask(old *cairn.Task, state cairn.TaskState, fault cairn.Fault) {
	row := *old
	row.State, row.Fault, row.EndedAt = state, fault, tx.meta.At
	put(tx, tx.tasks, &row)
}

// idle returns the share if it is available, its active replica has the data that it should have, and no task holds its lock.
func (tx *Tx) idle(id cairn.ShareID) (*cairn.Share, error) {
	s := tx.Share(id)
	if s == nil {
		return nil, missing(cairn.KindShare, id)
	}
	if task := tx.Task(id); task.Running() {
		return nil, tx.busy(s, task)
	}
	if s.Status != cairn.StatusAvailable {
		return nil, cause(cairn.ErrPrecondition, "%s: is %s, not available", s.Ref(), s.Status)
	}
	if tx.Replica(s.Active).Want.Revert != "" { // without a task that says so: a failover
		return nil, cause(cairn.ErrBusy, "%s: replica %s has not taken over completely", s.Ref(), s.Active)
	}
	return s, nil
}

func (tx *Tx) busy(s *cairn.Share, t *cairn.Task) error {
	return cause(cairn.ErrBusy, "%s: task %s (%s) is running", s.Ref(), t.ID, t.Kind)
}

func (c *ResizeShare) apply(tx *Tx) (string, error) {
	next := SetSize{c.ID, cairn.TaskShrink, c.Size, c.Task}
	if share := tx.Share(c.ID); share != nil && c.Size > share.Size {
		next.Kind = cairn.TaskExtend
	}
	return next.apply(tx)
}

func (c *SetSize) apply(tx *Tx) (string, error) {
	if err := cairn.CheckSize(c.Size); err != nil {
		return "", err
	}
	if err := checkID(cairn.KindTask, c.Task); err != nil {
		return "", err
	}
	share, err := tx.idle(c.ID)
	if err != nil {
		return "", err
	}
	if err := c.checkDirection(share); err != nil {
		return "", err
	}
	if err := tx.needs(share, cairn.CapResize); err != nil {
		return "", err
	}
	task := &cairn.Task{ID: c.Task, Kind: c.Kind, Size: c.Size}
	if growth := c.Size - share.Size; growth > 0 {
		if err := tx.reserveGrowth(share, growth); err != nil {
			return "", err
		}
	}
	tx.startTask(share, task)
	tx.want(c.ID, func(w *cairn.ReplicaWant) { w.Size = c.Size })
	tx.event("share."+resizeVerb[task.Kind].running, share.Project, share.Ref(), "share %s goes from %s to %s",
		share.Name, cairn.FormatSize(share.Size), cairn.FormatSize(c.Size))
	return string(c.Task), nil
}

// checkDirection refuses an extend that would shrink, and the other way round. No resize is running, so the size that the
// share has is the one that is wanted.
func (c *SetSize) checkDirection(share *cairn.Share) error {
	has, wants := cairn.FormatSize(share.Size), cairn.FormatSize(c.Size)
	switch {
	case c.Size == share.Size:
		return cause(cairn.ErrInvalid, "%s: has %s already; an extend needs a larger size and a shrink a smaller one", share.Ref(), has)
	case c.Kind != cairn.TaskExtend && c.Kind != cairn.TaskShrink:
		return cause(cairn.ErrInvalid, "%s: %q is no way to resize it", share.Ref(), c.Kind)
	case c.Kind == cairn.TaskExtend && c.Size < share.Size:
		return cause(cairn.ErrInvalid, "%s: has %s, so it cannot be extended to %s; name a larger size, or shrink it", share.Ref(), has, wants)
	case c.Kind == cairn.TaskShrink && c.Size > share.Size:
		return cause(cairn.ErrInvalid, "%s: has %s, so it cannot be shrunk to %s; name a smaller size, or extend it", share.Ref(), has, wants)
	}
	return nil
}

var resizeVerb = map[cairn.TaskKind]struct{ running, done string }{
	cairn.TaskExtend: {"extending", "extended"},
	cairn.TaskShrink: {"shrinking", "shrunk"},
}

// reserveGrowth takes quota and capacity for an extension before it begins, so that it cannot run out of them halfway.
func (tx *Tx) reserveGrowth(s *cairn.Share, growth int64) error {
	for r := range tx.ReplicasOf(s.ID) {
		if err := tx.charge(s.Project, cairn.Limits{Bytes: growth}); err != nil {
			return err
		}
		if err := tx.promise(tx.Pool(r.Pool), growth); err != nil {
			return err
		}
	}
	return nil
}

// returnGrowth gives back what a resize had reserved above the size that the share now has.
func (tx *Tx) returnGrowth(s *cairn.Share, growth int64) {
	for r := range tx.ReplicasOf(s.ID) {
		tx.giveBack(s.Project, cairn.Limits{Bytes: growth})
		tx.takeBack(r.Pool, growth)
	}
}

// waitsFor reports whether a resize waits for the replica: for the active one always, for others while they are there and
// their node is up. One that comes back later learns what is wanted then.
func (tx *Tx) waitsFor(s *cairn.Share, r *cairn.Replica) bool {
	return r.ID == s.Active ||
		r.Have.Presence == cairn.Present && r.Want.Presence == cairn.Present && tx.Node(r.Node).State == cairn.NodeUp
}

// everywhere reports whether the share is served, and all replicas that a resize waits for have the size.
func (tx *Tx) everywhere(s *cairn.Share) bool {
	if have := tx.Replica(s.Active).Have; have.Presence != cairn.Present || !have.Fault.Healthy() {
		return false
	}
	for r := range tx.ReplicasOf(s.ID) {
		if tx.waitsFor(s, r) && r.Have.Size != r.Want.Size {
			return false
		}
	}
	return true
}

// settleResize ends a resize that has waited for a replica which does not count any more.
func (tx *Tx) settleResize(id cairn.ShareID) {
	task := tx.Task(id)
	if !task.Running() || task.Kind != cairn.TaskExtend && task.Kind != cairn.TaskShrink {
		return
	}
	row := *tx.Share(id)
	if !tx.everywhere(&row) {
		return
	}
	tx.resized(&row, task)
	put(tx, tx.shares, &row)
	if tx.handOver(&row) {
		tx.want(id, nil)
	}
}

// resized grants the size that was wanted. What a shrink frees is given back only now: until now it was in use.
func (tx *Tx) resized(share *cairn.Share, task *cairn.Task) {
	if freed := share.Size - task.Size; freed > 0 {
		tx.returnGrowth(share, freed)
	}
	share.Size = task.Size
	tx.endTask(task, cairn.TaskSucceeded, cairn.Fault{})
	tx.event("share."+resizeVerb[task.Kind].done, share.Project, share.Ref(), "share %s has %s", share.Name, cairn.FormatSize(share.Size))
}

// taskFault is what keeps a task from getting on: a fault of a replica that it waits for, the active one's first.
func (tx *Tx) taskFault(s *cairn.Share, t *cairn.Task) cairn.Fault {
	if fault := tx.Replica(s.Active).Have.Fault; !fault.Healthy() {
		return fault
	}
	for r := range tx.ReplicasOf(s.ID) {
		resizes := (t.Kind == cairn.TaskExtend || t.Kind == cairn.TaskShrink) && tx.waitsFor(s, r)
		if (resizes || t.Replica == r.ID) && !r.Have.Fault.Healthy() {
			return r.Have.Fault
		}
	}
	return cairn.Fault{}
}

func (c *RevertShare) apply(tx *Tx) (string, error) {
	if err := checkID(cairn.KindTask, c.Task); err != nil {
		return "", err
	}
	share, err := tx.idle(c.ID)
	if err != nil {
		return "", err
	}
	snap := tx.Snapshot(c.Snapshot)
	if snap == nil || snap.Share != c.ID {
		return "", fmt.Errorf("%s: %w", share.Ref(), missing(cairn.KindSnapshot, c.Snapshot))
	}
	if !tx.Type(share.Type).Revert {
		return "", cause(cairn.ErrNotSupported, "%s: type %s does not offer revert", share.Ref(), share.Type)
	}
	if err := tx.needs(share, cairn.CapRevert); err != nil {
		return "", err
	}
	switch newest := tx.newestSnapshot(c.ID); {
	case snap.Diverged:
		return "", cause(cairn.ErrPrecondition, "%s: snapshot %s is not on the active replica; make a share from it", share.Ref(), snap.Name)
	case newest.ID != snap.ID:
		return "", cause(cairn.ErrPrecondition, "%s: only the newest snapshot can be reverted to, and that is %s (%s), not %s",
			share.Ref(), newest.Name, newest.Status, snap.Name)
	case snap.Status != cairn.StatusAvailable:
		return "", cause(cairn.ErrPrecondition, "%s: the newest snapshot %s is %s", share.Ref(), snap.Name, snap.Status)
	case snap.Size > share.Size:
		return "", cause(cairn.ErrPrecondition, "%s: snapshot %s was cut at %s; extend the share to that first", share.Ref(), snap.Name, cairn.FormatSize(snap.Size))
	}
	tx.startTask(share, &cairn.Task{ID: c.Task, Kind: cairn.TaskRevert, Snapshot: snap.ID})
	// Only the active one goes back: the others follow it, as they follow every write.
	tx.wantOf(tx.Replica(share.Active), func(w *cairn.ReplicaWant) { w.Revert = snap.ID })
	tx.event("share.reverting", share.Project, share.Ref(), "share %s goes back to snapshot %s", share.Name, snap.Name)
	return string(c.Task), nil
}

func (c *UnmanageShare) apply(tx *Tx) (string, error) {
	if err := checkID(cairn.KindTask, c.Task); err != nil {
		return "", err
	}
	if err := checkObjectName(c.Release); err != nil {
		return "", err
	}
	share, err := tx.idle(c.ID)
	if err != nil {
		return "", err
	}
	if err := tx.noSnapshots(share); err != nil {
		return "", err
	}
	if n := len(slices.Collect(tx.ReplicasOf(c.ID))); n > 1 {
		return "", cause(cairn.ErrPrecondition, "%s: has %d replicas; remove all but the active one first", share.Ref(), n)
	}
	if err := tx.needs(share, cairn.CapAdopt); err != nil {
		return "", err
	}
	row := *share
	if err := become(row.Ref(), &row.Status, cairn.StatusDeleting); err != nil {
		return "", err
	}
	put(tx, tx.shares, &row)
	tx.startTask(&row, &cairn.Task{ID: c.Task, Kind: cairn.TaskUnmanage})
	tx.release(c.ID, c.Release)
	tx.event("share.unmanaging", row.Project, row.Ref(), "share %s is let go of; its data stays as %q", row.Name, c.Release)
	return string(c.Task), nil
}

// release wants the objects of a share to stay in their pools under a name, without Cairn's mark.
func (tx *Tx) release(share cairn.ShareID, name string) {
	tx.want(share, func(w *cairn.ReplicaWant) { w.Presence, w.Release = cairn.Released, name })
}

func (c *CancelTask) apply(tx *Tx) (string, error) {
	next := StopTask{Share: c.Share}
	if task := tx.Task(c.Share); task.Running() {
		next.Task = task.ID
	}
	return next.apply(tx)
}

func (c *StopTask) apply(tx *Tx) (string, error) {
	share, task := tx.Share(c.Share), tx.Task(c.Share)
	switch {
	case share == nil:
		return "", missing(cairn.KindShare, c.Share)
	case !task.Running():
		return "", cause(cairn.ErrPrecondition, "%s: no task is running", share.Ref())
	case task.ID != c.Task:
		return "", cause(cairn.ErrPrecondition, "%s: task %s is not running any more; task %s (%s) is", share.Ref(), c.Task, task.ID, task.Kind)
	}
	row := *share
	switch task.Kind {
	case cairn.TaskExtend, cairn.TaskShrink:
		tx.endTask(task, cairn.TaskCancelled, cairn.Fault{})
		tx.undoResize(&row, task)
	case cairn.TaskManage:
		if err := become(row.Ref(), &row.Status, cairn.StatusDeleting); err != nil {
			return "", err
		}
		put(tx, tx.shares, &row)
		tx.endTask(task, cairn.TaskCancelled, cairn.Fault{})
		tx.release(row.ID, tx.Replica(row.Active).Want.Adopt)
	case cairn.TaskPromote:
		if row.Active == task.Replica {
			return "", cause(cairn.ErrPrecondition, "%s: replica %s is active already and only has to be served", share.Ref(), task.Replica)
		}
		tx.callOff(task, cairn.TaskCancelled, cairn.Fault{})
	default:
		return "", cause(cairn.ErrPrecondition, "%s: task %s (%s) may be half done and cannot be cancelled", share.Ref(), task.ID, task.Kind)
	}
	tx.event("task.cancelled", row.Project, row.Ref(), "task %s of share %s cancelled", task.Kind, row.Name)
	return string(task.ID), nil
}

// undoResize wants the size that the share has, gives back what an extension had reserved, and hands over the access rules
// that had to wait.
func (tx *Tx) undoResize(s *cairn.Share, task *cairn.Task) {
	if growth := task.Size - s.Size; growth > 0 {
		tx.returnGrowth(s, growth)
	}
	tx.handOver(s)
	tx.want(s.ID, func(w *cairn.ReplicaWant) { w.Size = s.Size })
}

package fsm

import (
	"fmt"
	"slices"

	"github.com/cairn-storage/cairn"
)

// ReportReplica is what a node found and did about a replica. It is refused as cairn.ErrStale unless the node hosts the
// replica and Generation and Epoch are the newest: an answer to an older question proves nothing.
type ReportReplica struct {
	Node       cairn.NodeID
	Replica    cairn.ReplicaID
	Generation uint64
	Epoch      uint64
	// Have is what was found; its Generation is ignored.
	Have      cairn.ReplicaHave
	Snapshots []SnapshotHave
	// RuleFault says why access rules could not be applied, though the replica itself is served.
	RuleFault cairn.Fault
}

// SnapshotHave is what the node found of one snapshot on the replica. Absent means that it is certainly not there.
type SnapshotHave struct {
	Snapshot  cairn.SnapshotID
	Have      cairn.Presence
	Fault     cairn.Fault
	Locations []cairn.ExportLocation
}

func (*ReportReplica) op() Op           { return OpReportReplica }
func (c *ReportReplica) target() string { return "replica/" + string(c.Replica) }

// ReportReplicas is many reports of one node in one log entry. Each is taken or refused by itself, as Result.Each says.
type ReportReplicas struct {
	Node    cairn.NodeID
	Reports []ReportReplica
}

func (*ReportReplicas) op() Op           { return OpReportReplicas }
func (c *ReportReplicas) target() string { return "node/" + string(c.Node) }

func (c *ReportReplicas) apply(tx *Tx) (string, error) {
	for i := range c.Reports {
		if about := c.Reports[i].Node; about != c.Node {
			return "", cause(cairn.ErrDenied, "node %s: reports for node %s", c.Node, about)
		}
	}
	for i := range c.Reports {
		tx.each = append(tx.each, tx.attempt(func() error {
			_, err := c.Reports[i].apply(tx)
			return err
		}))
	}
	return string(c.Node), nil
}

// report is a ReportReplica while it is applied: copies of the rows that it changes, written once at the end.
type report struct {
	*Tx
	c       *ReportReplica
	share   cairn.Share
	replica cairn.Replica
	wants   bool // something new is wanted of the replica: the generation rises
}

func (c *ReportReplica) apply(tx *Tx) (string, error) {
	replica := tx.Replica(c.Replica)
	if err := c.current(replica); err != nil {
		return "", err
	}
	if err := c.check(); err != nil {
		return "", err
	}
	r := &report{Tx: tx, c: c, share: *tx.Share(replica.Share), replica: *replica}
	r.replica.Have = c.Have
	r.replica.Have.Generation = c.Generation
	r.replica.Have.Fault = tx.since(replica.Have.Fault, c.Have.Fault)
	found := r.replica // rows are never changed: the working copy is
	put(tx, tx.replicas, &found)
	for i := range c.Snapshots {
		if err := r.settleInstance(&c.Snapshots[i]); err != nil {
			return "", err
		}
	}
	if r.gone() {
		return string(c.Replica), nil
	}
	if err := r.created(); err != nil {
		return "", err
	}
	r.kept()
	r.reverted()
	r.settleTask()
	r.settleRules()
	r.finish()
	tx.settleState(r.replica.ID, c.Have.InSync && replica.Want.Keep == (cairn.Keep{}))
	tx.advancePromotion(r.share.ID)
	return string(c.Replica), nil
}

// current refuses a report about anything but the newest state of a replica that the node hosts.
func (c *ReportReplica) current(r *cairn.Replica) error {
	switch {
	case r == nil:
		return cause(cairn.ErrStale, "replica %s: is gone", c.Replica)
	case r.Node != c.Node:
		return cause(cairn.ErrStale, "replica %s: is on node %s, not on %s", c.Replica, r.Node, c.Node)
	case r.Epoch != c.Epoch || r.Generation != c.Generation:
		return cause(cairn.ErrStale, "replica %s: report of epoch %d generation %d, but it is at %d and %d",
			c.Replica, c.Epoch, c.Generation, r.Epoch, r.Generation)
	}
	return nil
}

func (c *ReportReplica) check() error {
	switch c.Have.Presence {
	case cairn.Present, cairn.Absent, cairn.Released:
	default:
		return cause(cairn.ErrInvalid, "replica %s: presence %q: want present, absent or released", c.Replica, c.Have.Presence)
	}
	for _, s := range c.Snapshots {
		if s.Have != cairn.Present && s.Have != cairn.Absent {
			return cause(cairn.ErrInvalid, "replica %s: snapshot %s: presence %q: want present or absent", c.Replica, s.Snapshot, s.Have)
		}
	}
	for _, id := range []cairn.SnapshotID{c.Have.Sealed, c.Have.Synced, c.Have.Kept} {
		if id == "" {
			continue
		}
		if err := checkID(cairn.KindSnapshot, id); err != nil {
			return fmt.Errorf("replica %s: %w", c.Replica, err)
		}
	}
	return nil
}

// served reports whether the node has the replica and nothing is wrong with it.
func (r *report) served() bool {
	return r.replica.Have.Presence == cairn.Present && r.replica.Have.Fault.Healthy()
}

// gone removes a replica that is not wanted any more once nothing of it is left, and the share that is being deleted with
// its last one. The active one's row stays until then: a share always has one.
func (r *report) gone() bool {
	have := r.replica.Have
	if r.replica.Want.Presence == cairn.Present || have.Presence == cairn.Present || !have.Fault.Healthy() {
		return false
	}
	if r.share.Active == r.replica.ID {
		return r.bury(&r.share)
	}
	r.forget(&r.share, &r.replica)
	return true
}

// created makes a share available whose replica is there, and ends the task of a managed one.
func (r *report) created() error {
	if r.share.Status != cairn.StatusCreating || r.share.Active != r.replica.ID || !r.served() {
		return nil
	}
	if err := become(r.share.Ref(), &r.share.Status, cairn.StatusAvailable); err != nil {
		return err
	}
	if task := r.Task(r.share.ID); task.Running() && task.Kind == cairn.TaskManage {
		r.endTask(task, cairn.TaskSucceeded, cairn.Fault{})
		r.event("share.managed", r.share.Project, r.share.Ref(), "share %s is available with the data of %q", r.share.Name, r.replica.Want.Adopt)
		return nil
	}
	r.event("share.created", r.share.Project, r.share.Ref(), "share %s is available", r.share.Name)
	return nil
}

// settleTask ends the running task of an available share if the report shows that it is done, or that it never can be.
func (r *report) settleTask() {
	task := r.Task(r.share.ID)
	if !task.Running() {
		return
	}
	switch {
	case r.share.Status != cairn.StatusAvailable:
	case task.Kind == cairn.TaskShrink && r.replica.Have.Fault.Code == cairn.FaultDataLoss:
		r.refuseShrink(task)
		return
	case task.Kind == cairn.TaskPromote: // advancePromotion's
	case task.Kind == cairn.TaskRevert:
		if r.replica.ID == r.share.Active && r.served() && r.replica.Want.Revert == "" && !r.wants {
			r.endTask(task, cairn.TaskSucceeded, cairn.Fault{})
			r.event("share.reverted", r.share.Project, r.share.Ref(), "share %s is back at snapshot %s", r.share.Name, r.Snapshot(task.Snapshot).Name)
			return
		}
	case r.everywhere(&r.share):
		r.resized(&r.share, task)
		return
	}
	row := *task
	row.Fault = r.since(task.Fault, r.taskFault(&r.share, task))
	put(r.Tx, r.tasks, &row)
}

// reverted takes the wish back from a replica whose data is back, so that it may be served again. Who waits for the task
// waits for the next report, and finds the share served. What is to be kept is kept first.
func (r *report) reverted() {
	if r.replica.Want.Revert != "" && r.served() && r.replica.Want.Keep == (cairn.Keep{}) {
		r.replica.Want.Revert, r.wants = "", true
		if !r.Task(r.share.ID).Running() {
			r.event("share.taken_over", r.share.Project, r.share.Ref(), "share %s goes on at node %s", r.share.Name, r.Node(r.replica.Node).Name)
		}
	}
}

// kept takes the wish back to put aside what no other replica has, and makes a snapshot of what was: listed, mounted, cloned
// and deleted like any other. It takes quota, but is never refused for lack of it.
func (r *report) kept() {
	keep, have := r.replica.Want.Keep, r.replica.Have
	if keep == (cairn.Keep{}) || have.Kept != keep.Snapshot || r.Snapshot(keep.Snapshot) != nil {
		return
	}
	r.replica.Want.Keep, r.wants = cairn.Keep{}, true
	if !have.Diverged {
		return
	}
	row := cairn.Snapshot{
		ID: keep.Snapshot, Share: r.share.ID, Project: r.share.Project, Name: r.divergedName(), Size: r.share.Size,
		Status: cairn.StatusAvailable, Diverged: true, CreatedAt: r.meta.At, Order: r.nextOrder(r.share.ID),
		Description: "written by an earlier active replica after " + string(keep.Base) + "; no other replica has it",
	}
	put(r.Tx, r.snapshots, &row)
	put(r.Tx, r.instances, &cairn.SnapshotInstance{Snapshot: row.ID, Replica: r.replica.ID, Want: cairn.Present, Have: cairn.Present})
	r.use(row.Project, cairn.Limits{Snapshots: 1, SnapshotBytes: row.Size}, +1)
	r.event("share.diverged", row.Project, row.Ref(), "share %s: node %s holds writes that no other replica has; they are kept as snapshot %s",
		r.share.Name, r.Node(r.replica.Node).Name, row.Name)
}

// divergedName is free: a user may have taken the first one, and several replicas may answer in one epoch.
func (r *report) divergedName() string {
	name := fmt.Sprintf("diverged-%d", r.replica.Epoch)
	for n := 2; r.SnapshotByName(r.share.ID, name) != nil; n++ {
		name = fmt.Sprintf("diverged-%d-%d", r.replica.Epoch, n)
	}
	return name
}

// refuseShrink ends a shrink that would lose data. The fault moves from the replica to the task: the share is as healthy as
// it was.
func (r *report) refuseShrink(task *cairn.Task) {
	fault := r.replica.Have.Fault
	r.endTask(task, cairn.TaskFailed, fault)
	r.wantOfAll(func(w *cairn.ReplicaWant) { w.Size = r.share.Size })
	r.replica.Have.Fault = cairn.Fault{}
	r.event("share.shrink_refused", r.share.Project, r.share.Ref(), "share %s keeps %s: %s", r.share.Name, cairn.FormatSize(r.share.Size), fault.Message)
}

// wantOfAll is want, on the working copy of the replica and the rows of the others.
func (r *report) wantOfAll(change func(*cairn.ReplicaWant)) {
	for _, other := range slices.Collect(r.ReplicasOf(r.share.ID)) {
		if other.ID != r.replica.ID {
			r.wantOf(other, change)
		}
	}
	if change != nil {
		change(&r.replica.Want)
	}
	r.wants = true
}

// finish writes the rows, with what is wanted next.
func (r *report) finish() {
	if r.handOver(&r.share) {
		r.wantOfAll(nil)
	}
	if r.wants {
		r.replica.Generation++
	}
	put(r.Tx, r.replicas, &r.replica)
	before := r.share.Fault
	if r.share.Active == r.replica.ID {
		r.share.Fault = r.faultOf(&r.share, &r.replica)
	}
	put(r.Tx, r.shares, &r.share)
	switch now := r.share.Fault; {
	case before.Code == now.Code && before.Message == now.Message:
	case now.Healthy():
		r.event("share.healthy", r.share.Project, r.share.Ref(), "share %s is healthy again", r.share.Name)
	default:
		r.event("share.faulty", r.share.Project, r.share.Ref(), "share %s: %s", r.share.Name, now.Message)
	}
}

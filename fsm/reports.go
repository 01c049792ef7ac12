package fsm

import (
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
	put(tx, tx.replicas, &r.replica)
	for i := range c.Snapshots {
		if err := r.settleInstance(&c.Snapshots[i]); err != nil {
			return "", err
		}
	}
	if r.share.Status == cairn.StatusDeleting && r.gone() {
		return string(c.Replica), nil
	}
	if err := r.created(); err != nil {
		return "", err
	}
	r.settleTask()
	r.settleRules()
	r.finish()
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
	return nil
}

// served reports whether the node has the replica and nothing is wrong with it.
func (r *report) served() bool {
	return r.replica.Have.Presence == cairn.Present && r.replica.Have.Fault.Healthy()
}

// gone removes the replica of a share that is being deleted once nothing of it is left, and the share with its last one.
func (r *report) gone() bool {
	have := r.replica.Have
	if have.Presence == cairn.Present || !have.Fault.Healthy() {
		return false
	}
	if len(slices.Collect(r.ReplicasOf(r.share.ID))) > 1 {
		r.dropReplica(&r.share, &r.replica)
		return true
	}
	r.dropShare(&r.share)
	if have.Presence == cairn.Released {
		r.event("share.unmanaged", r.share.Project, r.share.Ref(), "share %s is not managed any more; its data stays as %q", r.share.Name, r.replica.Want.Release)
	} else {
		r.event("share.deleted", r.share.Project, r.share.Ref(), "share %s is gone", r.share.Name)
	}
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
	have := &r.replica.Have
	switch {
	case r.share.Status != cairn.StatusAvailable:
	case task.Kind == cairn.TaskShrink && have.Fault.Code == cairn.FaultDataLoss:
		r.refuseShrink(task)
		return
	case !r.served():
	case task.Kind == cairn.TaskRevert:
		r.reverted(task)
		return
	case r.everywhere(func(replica *cairn.Replica) bool { return replica.Have.Size == replica.Want.Size }):
		r.resized(task)
		return
	}
	row := *task
	row.Fault = r.since(task.Fault, have.Fault)
	put(r.Tx, r.tasks, &row)
}

// everywhere reports whether something holds for all replicas of the share.
func (r *report) everywhere(holds func(*cairn.Replica) bool) bool {
	for replica := range r.ReplicasOf(r.share.ID) {
		if !holds(replica) {
			return false
		}
	}
	return true
}

// reverted takes the wish back from a replica whose data is back, so that it may be served again, and ends the task when
// that has happened everywhere: who waits for the task finds the share served.
func (r *report) reverted(task *cairn.Task) {
	if r.replica.Want.Revert != "" {
		r.replica.Want.Revert, r.wants = "", true
		return
	}
	if r.everywhere(func(replica *cairn.Replica) bool { return replica.Want.Revert == "" && replica.Settled() }) {
		r.endTask(task, cairn.TaskSucceeded, cairn.Fault{})
		r.event("share.reverted", r.share.Project, r.share.Ref(), "share %s is back at snapshot %s", r.share.Name, r.Snapshot(task.Snapshot).Name)
	}
}

// resized grants the size that was wanted. What a shrink frees is given back only now: until now it was in use.
func (r *report) resized(task *cairn.Task) {
	if freed := r.share.Size - task.Size; freed > 0 {
		r.returnGrowth(&r.share, freed)
	}
	r.share.Size = task.Size
	r.endTask(task, cairn.TaskSucceeded, cairn.Fault{})
	r.event("share."+resizeVerb[task.Kind].done, r.share.Project, r.share.Ref(), "share %s has %s", r.share.Name, cairn.FormatSize(r.share.Size))
}

// refuseShrink ends a shrink that would lose data. The fault moves from the replica to the task: the share is as healthy as
// it was.
func (r *report) refuseShrink(task *cairn.Task) {
	fault := r.replica.Have.Fault
	r.endTask(task, cairn.TaskFailed, fault)
	r.want(r.share.ID, func(w *cairn.ReplicaWant) { w.Size = r.share.Size })
	r.replica = *r.Replica(r.replica.ID)
	r.replica.Have.Fault = cairn.Fault{}
	r.event("share.shrink_refused", r.share.Project, r.share.Ref(), "share %s keeps %s: %s", r.share.Name, cairn.FormatSize(r.share.Size), fault.Message)
}

// finish writes the rows, with what is wanted next.
func (r *report) finish() {
	if r.handOver(&r.share) {
		r.wants = true
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

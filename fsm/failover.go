package fsm

import (
	"time"

	"github.com/cairn-storage/cairn"
)

// FailoverShares makes standbys active whose active one is on a node that is down, each by itself as Result.Each says. The
// leader has asked the candidates before; what it learned is in the command.
type FailoverShares struct{ Failovers []Failover }

// Failover is one share's.
type Failover struct {
	Share   cairn.ShareID
	Replica cairn.ReplicaID // becomes active
	// Epoch is the share's when the candidates were asked. In another one their answers prove nothing.
	Epoch uint64
	// Snapshot is the newest sync point that it has, cut Window nanoseconds before the decision: what was written since is
	// left behind at the old active, which keeps it as Keep when it comes back.
	Snapshot cairn.SnapshotID
	Window   int64
	Keep     cairn.SnapshotID
	// Forced is an operator's word: the policy, the state of the replica and an active that is up do not matter.
	Forced bool
}

func (*FailoverShares) op() Op { return OpFailoverShares }
func (c *FailoverShares) target() string {
	if len(c.Failovers) == 1 {
		return "share/" + string(c.Failovers[0].Share)
	}
	return "shares"
}

func (c *FailoverShares) apply(tx *Tx) (string, error) {
	for i := range c.Failovers {
		tx.each = append(tx.each, tx.attempt(func() error { return c.Failovers[i].apply(tx) }))
	}
	return c.target(), nil
}

func (f *Failover) apply(tx *Tx) error {
	share, to := tx.Share(f.Share), tx.Replica(f.Replica)
	switch {
	case share == nil:
		return missing(cairn.KindShare, f.Share)
	case to == nil || to.Share != f.Share:
		return cause(cairn.ErrNotFound, "%s: has no replica %q", share.Ref(), f.Replica)
	case share.Status != cairn.StatusAvailable:
		return cause(cairn.ErrPrecondition, "%s: is %s, not available", share.Ref(), share.Status)
	}
	if err := f.check(tx, share); err != nil {
		return err
	}
	from := tx.Replica(share.Active)
	if err := f.allowed(tx, share, from, to); err != nil {
		return err
	}
	if task := tx.Task(share.ID); task.Running() && task.Kind == cairn.TaskPromote {
		tx.callOff(task, cairn.TaskFailed, cairn.Fault{Code: cairn.FaultNodeDown, At: tx.meta.At, Message: "node " + tx.Node(to.Node).Name + " took over meanwhile"})
	}
	tx.lead(tx.Share(f.Share), tx.Replica(f.Replica), cairn.Keep{Snapshot: f.Keep, Base: f.Snapshot})
	tx.event("share.failover", share.Project, share.Ref(), "share %s: node %s takes over from node %s; up to %s of writes stay behind and are kept there",
		share.Name, tx.Node(to.Node).Name, tx.Node(from.Node).Name, time.Duration(f.Window).Round(time.Millisecond))
	return nil
}

// check refuses a failover that does not say where to start from, or under what name to keep what is left behind.
func (f *Failover) check(tx *Tx, share *cairn.Share) error {
	for _, id := range []cairn.SnapshotID{f.Snapshot, f.Keep} {
		if err := checkID(cairn.KindSnapshot, id); err != nil {
			return err
		}
	}
	switch {
	case f.Window < 0:
		return cause(cairn.ErrInvalid, "%s: a sync point from the future", share.Ref())
	case tx.Snapshot(f.Keep) != nil:
		return cause(cairn.ErrExists, "snapshot %s: that identifier is taken", f.Keep)
	}
	return nil
}

// allowed checks the fence and the policy. An active one whose node is up could still write: it is never taken over from but
// on an operator's word.
func (f *Failover) allowed(tx *Tx, share *cairn.Share, from, to *cairn.Replica) error {
	t, node := tx.Type(share.Type), tx.Node(to.Node)
	switch {
	case f.Epoch != from.Epoch:
		return cause(cairn.ErrStale, "%s: was decided in epoch %d, but it is at %d", share.Ref(), f.Epoch, from.Epoch)
	case to.ID == from.ID:
		return cause(cairn.ErrInvalid, "%s: is the active replica already", to.Ref())
	case to.Want.Presence != cairn.Present:
		return cause(cairn.ErrPrecondition, "%s: is being removed", to.Ref())
	case to.Have.Presence != cairn.Present:
		return cause(cairn.ErrPrecondition, "%s: has never been complete", to.Ref())
	case to.Have.Fault.Code == cairn.FaultMissing:
		return cause(cairn.ErrPrecondition, "%s: %s", to.Ref(), to.Have.Fault.Message)
	case node.State != cairn.NodeUp:
		return cause(cairn.ErrPrecondition, "%s: its node %s is down", to.Ref(), node.Name)
	case f.Forced:
		return nil
	case tx.Node(from.Node).State != cairn.NodeDown:
		return cause(cairn.ErrStale, "%s: node %s, which has the active replica, is %s", share.Ref(), tx.Node(from.Node).Name, tx.Node(from.Node).State)
	case t.Failover != cairn.FailoverAuto:
		return cause(cairn.ErrPrecondition, "%s: type %s leaves failover to an operator", share.Ref(), t.Name)
	case to.State != cairn.ReplicaInSync:
		return cause(cairn.ErrPrecondition, "%s: is %s", to.Ref(), to.State)
	case t.MaxRPO > 0 && f.Window > t.MaxRPO:
		return cause(cairn.ErrPrecondition, "%s: %s of writes would be lost, and type %s allows %s", share.Ref(),
			time.Duration(f.Window).Round(time.Millisecond), t.Name, time.Duration(t.MaxRPO))
	}
	return nil
}

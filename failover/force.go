package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// prepare asks how far a replica is, and returns what forcing the share over to it would mean: Window is what would be left
// behind at the active one, up to now if that one can still write. Without a replica it is the freshest one, of all that are
// on nodes that are up. Nothing is decided.
func (c *Controller) prepare(ctx context.Context, id cairn.ShareID, to cairn.ReplicaID) (fsm.Failover, error) {
	view, err := c.config.Viewer.ReadView(ctx)
	if err != nil {
		return fsm.Failover{}, err
	}
	share := view.Share(id)
	if share == nil {
		return fsm.Failover{}, fmt.Errorf("share %q: %w", id, cairn.ErrNotFound)
	}
	chosen, err := eligible(view, share, to)
	if err != nil {
		return fsm.Failover{}, err
	}
	asked := make([]*standby, len(chosen))
	for i := range chosen {
		asked[i] = &chosen[i]
	}
	ask(ctx, c.config, asked)
	for _, s := range chosen {
		if s.silent != nil {
			return fsm.Failover{}, fmt.Errorf("%s: node %s does not say how far its replica is (%v)%s: %w",
				share.Ref(), s.node.Name, s.silent, advice(to), cairn.ErrUnavailable)
		}
	}
	best := freshest(chosen)
	if best == nil {
		return fsm.Failover{}, fmt.Errorf("%s: no replica has a sync point to start from: %w", share.Ref(), cairn.ErrPrecondition)
	}
	from := view.Replica(share.Active)
	return fsm.Failover{
		Share: id, Replica: best.row.ID, Epoch: from.Epoch, Snapshot: best.newest, Window: int64(best.window(c.lastWrite(from.Node))),
		Keep: cairn.SnapshotID(newID()), Forced: true,
	}, nil
}

// advice is for an operator who has not named a replica.
func advice(to cairn.ReplicaID) string {
	if to != "" {
		return ""
	}
	return "; name a replica to go on without that one"
}

// Force makes a standby active on an operator's word, whatever the policy, its state, and whether the active one is up. It
// returns what is left behind. What the operator's request was goes into meta, as for every command.
//
// The active one's node may be up, and not know for a while what was decided. So it is withheld its lease before, and gets one again when it
// knows: meanwhile nothing on that node is written to that could have a second writer.
func (c *Controller) Force(ctx context.Context, meta fsm.Meta, share cairn.ShareID, to cairn.ReplicaID) (window time.Duration, err error) {
	first, err := c.prepare(ctx, share, to)
	if err != nil {
		return 0, err
	}
	node, err := activeNode(c.config.Viewer.View(), share)
	if err != nil {
		return 0, err
	}
	holds, release, err := c.config.Leases.Withhold(ctx, node)
	if err != nil {
		return 0, err
	}
	part, err := c.prepare(ctx, share, first.Replica) // what was written until now is left behind, too
	if err == nil && part.Epoch != first.Epoch {
		err = fmt.Errorf("share %s: its active replica has changed meanwhile; look again: %w", share, cairn.ErrBusy)
	}
	if err == nil && !holds() {
		err = fmt.Errorf("share %s: the leader has changed meanwhile; try again: %w", share, cairn.ErrUnavailable)
	}
	if err != nil {
		release(0)
		return 0, err
	}
	// Who asked may go; what was proposed must be known, or the node is withheld its lease for the rest of the term: the decision
	// may come yet.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.config.Timing.Call)
	defer cancel()
	result, err := c.config.Applier.Apply(ctx, meta, &fsm.FailoverShares{Failovers: []fsm.Failover{part}})
	certain := errors.Is(err, cairn.ErrUnavailable) || errors.Is(err, cairn.ErrUpgrade) // that nothing was done
	switch {
	case err == nil:
		release(result.Index)
	case certain && !errors.Is(err, cairn.ErrUnknownOutcome):
		release(0)
	}
	if err != nil {
		return 0, err
	}
	switch {
	case result.Err != nil:
		return 0, result.Err
	case len(result.Each) > 0 && result.Each[0] != nil:
		return 0, result.Each[0]
	}
	return time.Duration(part.Window), nil
}

// activeNode is the node of a share's active replica.
func activeNode(v *fsm.View, id cairn.ShareID) (cairn.NodeID, error) {
	if share := v.Share(id); share != nil {
		if row := v.Replica(share.Active); row != nil {
			return row.Node, nil
		}
	}
	return "", fmt.Errorf("share %q: %w", id, cairn.ErrNotFound)
}

// eligible returns the standbys that a share may be forced over to: the named one, or all.
func eligible(view *fsm.View, share *cairn.Share, to cairn.ReplicaID) (out []standby, err error) {
	all := standbysOf(view, share)
	for _, s := range all {
		if s.complete() && (to == "" || s.row.ID == to) {
			out = append(out, s)
		}
	}
	row := view.Replica(to)
	switch {
	case len(out) > 0:
		return out, nil
	case to == "" && len(all) == 0:
		return nil, fmt.Errorf("%s: has no other replica: %w", share.Ref(), cairn.ErrPrecondition)
	case to == "":
		return nil, fmt.Errorf("%s: no replica can take over: %s: %w", share.Ref(), conditions(all, "has no sync point of it"), cairn.ErrPrecondition)
	case row == nil || row.Share != share.ID:
		return nil, fmt.Errorf("%s: has no replica %q: %w", share.Ref(), to, cairn.ErrNotFound)
	case to == share.Active:
		return nil, fmt.Errorf("%s: is the active replica already: %w", row.Ref(), cairn.ErrInvalid)
	}
	s := standby{row: row, node: view.Node(row.Node)}
	return nil, fmt.Errorf("%s: cannot take over: %s: %w", row.Ref(), s.condition("is ready"), cairn.ErrPrecondition)
}

// lastWrite is that of the term. On a node that does not lead every moment up to now counts, which is the safe answer.
func (c *Controller) lastWrite(node cairn.NodeID) time.Time {
	if t := c.term.Load(); t != nil {
		return t.watch.lastWrite(node)
	}
	return time.Now()
}

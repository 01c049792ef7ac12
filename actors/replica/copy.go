package replica

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// A replica that is made from a snapshot of another pool is received with that snapshot, as a standby would be, and then parts
// from it: its data goes to the snapshot, which is deleted here. So all that a crash leaves is on the pool: while the replica
// has the snapshot of its source it is half made, and what is not ready or half made is only ever gone on with.

// Copied reports whether the replica is still to be made by receiving a snapshot that another pool has.
func Copied(v *fsm.View, row *cairn.Replica) bool {
	if row == nil || row.Role != cairn.RoleActive || row.Want.Source == "" || row.Have.Presence == cairn.Present {
		return false
	}
	source := v.Replica(row.Want.SourceReplica)
	return source == nil || source.Pool != row.Pool
}

// Origin returns the replica that sends a copied one its snapshot: the one that was chosen, as long as it can be asked, else any
// other that has it; nil if there is none. Only those on the given node count, unless that is "".
func Origin(v *fsm.View, row *cairn.Replica, on cairn.NodeID) (origin *cairn.Replica) {
	for i := range v.InstancesOf(row.Want.Source) {
		r := v.Replica(i.Replica)
		if r == nil || i.Have != cairn.Present || i.Want != cairn.Present || on != "" && r.Node != on {
			continue
		}
		node := v.Node(r.Node)
		up := node != nil && node.State == cairn.NodeUp
		switch {
		case up && r.ID == row.Want.SourceReplica:
			return r
		case up, origin == nil:
			origin = r
		}
	}
	return origin
}

// copySnapshot receives the snapshot that the replica is made from.
func (p *pass) copySnapshot(ctx context.Context) error {
	row := p.want.Replica
	pool := p.cfg.Pools[row.Pool]
	receiver, ok := pool.(drivers.Receiver)
	origin := Origin(p.view, row, "")
	switch {
	case !ok || p.cfg.Puller == nil:
		return fmt.Errorf("pool %s: cannot receive: %w", row.Pool, cairn.ErrNotSupported)
	case origin == nil:
		return fmt.Errorf("no replica has the snapshot any more; delete the share: %w", cairn.ErrNotFound)
	}
	ctx, end := p.interruptible(ctx)
	defer end()
	request := PullRequest{Share: row.Share, Standby: p.id, Epoch: row.Epoch}
	var err error
	if request.Resume, request.Resuming, err = receiver.Partial(ctx, p.id); err != nil && !errors.Is(err, cairn.ErrNotFound) {
		return fmt.Errorf("look for a rest: %w", err)
	}
	var own error // what went wrong on this side
	_, err = p.cfg.Puller.Pull(ctx, origin.Node, request, func(offer Offer, r io.Reader) error {
		actors.Doing(ctx, fmt.Sprintf("receive snapshot %s, about %s, from node %s", offer.Snapshot, cairn.FormatSize(offer.Size), p.nodeName(origin.Node)))
		stream := &watched{Reader: r}
		own = p.receiveCopy(ctx, receiver, offer, stream)
		if own != nil && stream.err != nil { // the stream broke: that the tool complains then says nothing
			own = nil
			return stream.err
		}
		return own
	})
	switch {
	case context.Cause(ctx) == errChanged:
		return fmt.Errorf("%w: %w", errChanged, cairn.ErrStale)
	case own != nil:
		return own
	case err == nil:
		return nil
	case errors.Is(err, cairn.ErrNotFound) && request.Resume != "": // what is here does not fit what is there
		if err := receiver.Abandon(ctx, p.id, row.Epoch); err != nil {
			return fmt.Errorf("abandon what was received: %w", err)
		}
	}
	// Whatever it is, it is not this replica that it says something about: no sentinel of the other side is one of ours.
	return fmt.Errorf("node %s: %v: %w", p.nodeName(origin.Node), err, cairn.ErrUnavailable)
}

func (p *pass) receiveCopy(ctx context.Context, receiver drivers.Receiver, offer Offer, r io.Reader) error {
	if offer.Snapshot != p.want.Replica.Want.Source || offer.Base != "" {
		return fmt.Errorf("was offered snapshot %q based on %q: %w", offer.Snapshot, offer.Base, cairn.ErrCorrupt)
	}
	if offer.Resume == "" {
		if err := receiver.Abandon(ctx, p.id, p.want.Replica.Epoch); err != nil && !errors.Is(err, cairn.ErrNotFound) {
			return err
		}
	}
	return receiver.Receive(ctx, drivers.ReceiveSpec{CreateSpec: p.createSpec(), Snapshot: offer.Snapshot}, r)
}

// part makes a received replica one of its own. Nobody has ever been served it, so going to the snapshot again takes nothing
// from anybody.
func (p *pass) part(ctx context.Context, pool drivers.Pool) error {
	row := p.want.Replica
	source := row.Want.Source
	snapshotter, cuts := pool.(drivers.Snapshotter)
	reverter, reverts := pool.(drivers.Reverter)
	sender, tells := pool.(drivers.Sender)
	if !cuts || !reverts || !tells {
		return fmt.Errorf("pool %s: cannot part from a snapshot: %w", row.Pool, cairn.ErrNotSupported)
	}
	if snap := p.have.snapshot(source); snap.Ready { // else its deletion has begun, and the data was there before
		changed, err := sender.Changed(ctx, p.id, source)
		if err != nil {
			return err
		}
		if changed != 0 {
			if err := reverter.Revert(ctx, p.id, row.Epoch, source); err != nil {
				return err
			}
		}
	}
	return snapshotter.DeleteSnapshot(ctx, p.id, row.Epoch, source)
}

// nodeName is what people call a node.
func (p *pass) nodeName(id cairn.NodeID) string {
	if node := p.view.Node(id); node != nil {
		return node.Name
	}
	return string(id)
}

// offerCopy answers a replica that is to be made from a snapshot here.
func (a *Actor) offerCopy(ctx context.Context, view *fsm.View, row *cairn.Replica, request PullRequest) (Offer, SendFunc, error) {
	if row.Share != request.Share || row.Epoch != request.Epoch {
		return Offer{}, nil, fmt.Errorf("replica %s: is of share %s in epoch %d here: %w", row.ID, row.Share, row.Epoch, cairn.ErrStale)
	}
	origin := Origin(view, row, a.cfg.Node)
	if origin == nil {
		return Offer{}, nil, fmt.Errorf("snapshot %s: is not to be had here: %w", row.Want.Source, cairn.ErrStale)
	}
	sender, ok := a.cfg.Pools[origin.Pool].(drivers.Sender)
	if !ok {
		return Offer{}, nil, fmt.Errorf("pool %s: cannot send: %w", origin.Pool, cairn.ErrNotSupported)
	}
	spec := drivers.SendSpec{Snapshot: row.Want.Source}
	if request.Resuming == spec.Snapshot {
		spec.Resume = request.Resume
	}
	size, err := sender.SendSize(ctx, origin.ID, spec)
	if err != nil {
		return Offer{}, nil, fmt.Errorf("replica %s: %w", origin.ID, err)
	}
	return Offer{Snapshot: spec.Snapshot, Resume: spec.Resume, Size: size},
		func(ctx context.Context, w io.Writer) error { return sender.Send(ctx, origin.ID, spec, w) }, nil
}

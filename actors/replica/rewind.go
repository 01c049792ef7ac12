package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
)

// What a standby has may be the only good copy by now, whatever the active replica looks like. So nothing that a user was
// told of is deleted here to be fetched anew before three things are certain: the cluster does not count this replica as in
// sync, the active replica has all of it, and it can be read there to the last byte.

// errRewind ends a stream that starts before something that is there.
var errRewind = errors.New("has to go back first")

// rewinds reports whether an offer can be taken only after snapshots of users were deleted: nothing is in common any more, or
// one is missing here that is older than others.
func (p *pass) rewinds(object drivers.Object, offer Offer) bool {
	if offer.Base == "" {
		return true
	}
	return slices.ContainsFunc(laterThan(object, offer.Base), func(id cairn.SnapshotID) bool { return p.fed(id) != nil })
}

// laterThan lists the snapshots after base, oldest first: all of them if base is "".
func laterThan(object drivers.Object, base cairn.SnapshotID) []cairn.SnapshotID {
	ids := inOrder(object.Snapshots)
	return ids[slices.Index(ids, base)+1:]
}

// fed returns the row of a snapshot that the active replica feeds this one with; nil for every other snapshot.
func (p *pass) fed(id cairn.SnapshotID) *WantSnapshot {
	for i := range p.want.Snapshots {
		if s := &p.want.Snapshots[i]; s.Snapshot == id && s.Want == cairn.Present && !s.Diverged {
			return s
		}
	}
	return nil
}

// rewind takes the replica back to the base of an offer, or away if there is none, so that what follows can be fetched.
func (p *pass) rewind(ctx context.Context, object drivers.Object, offer Offer) error {
	if err := p.uncounted(); err != nil {
		return err
	}
	later := laterThan(object, offer.Base)
	kept := inOrder(object.Snapshots)
	sendable, err := p.rehearse(ctx, kept[:len(kept)-len(later)])
	if err != nil {
		return err
	}
	for _, id := range later {
		if p.fed(id) != nil && !slices.Contains(sendable, id) {
			return fmt.Errorf("must be fetched anew from %q on, and holds snapshot %s, which the active replica does not have: %w", offer.Base, id, cairn.ErrInUse)
		}
	}
	if offer.Base == "" {
		return p.clear(ctx, object)
	}
	return p.rollBack(ctx, object, offer.Base, errRewind)
}

// uncounted refuses to touch what the cluster counts on: who is in sync may be made active at any moment. That it is not is
// reported at the end of this pass, and the next one goes on.
func (p *pass) uncounted() error {
	if p.want.Replica.State != cairn.ReplicaInSync {
		return nil
	}
	return fmt.Errorf("has to be fetched anew in part, and still counts as in sync: %w", cairn.ErrBusy)
}

// rehearse has the active replica send everything after what is had, and throws it away. It returns what was sent.
func (p *pass) rehearse(ctx context.Context, have []cairn.SnapshotID) (sent []cairn.SnapshotID, err error) {
	row := p.want.Replica
	actors.Doing(ctx, "read what the active replica has, before anything is deleted here")
	request := PullRequest{Share: row.Share, Standby: p.id, Epoch: row.Epoch, Have: slices.Clone(have)}
	var newest cairn.SnapshotID // when this began: what is cut while it goes on has no end
	for {
		offer, err := p.cfg.Puller.Pull(ctx, p.want.ActiveNode, request, func(_ Offer, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w from node %s, so what is here is kept: %w", errSource, p.want.ActiveNode, err)
		case offer.Snapshot == "":
			return sent, nil
		case slices.Contains(request.Have, offer.Snapshot):
			return nil, fmt.Errorf("%w from node %s: snapshot %s was offered twice", errSource, p.want.ActiveNode, offer.Snapshot)
		}
		sent, request.Have = append(sent, offer.Snapshot), append(request.Have, offer.Snapshot)
		if newest == "" {
			newest = offer.Newest
		}
		if _, ok := ParseSyncPoint(offer.Snapshot); ok && offer.Snapshot > newest {
			return sent, nil
		}
	}
}

// rollBack takes a standby's own data back to the base. Nothing is lost by that: what it wrote as an active replica has
// been put aside before (Want.Keep), and everything else came from an active one. Sync points behind the base are of a line
// that nobody follows any more; snapshots of users there were rehearsed.
func (p *pass) rollBack(ctx context.Context, object drivers.Object, base cairn.SnapshotID, why error) error {
	epoch := p.want.Replica.Epoch
	pool := p.cfg.Pools[p.want.Replica.Pool]
	snapshotter, cuts := pool.(drivers.Snapshotter)
	reverter, reverts := pool.(drivers.Reverter)
	if !cuts || !reverts {
		return errors.Join(why, cairn.ErrNotSupported)
	}
	for _, id := range slices.Backward(laterThan(object, base)) { // if this is cut off, nothing older than what is left is missing
		if _, ok := ParseSyncPoint(id); !ok && p.fed(id) == nil {
			continue
		}
		if err := p.uncounted(); err != nil {
			return err
		}
		p.forgetAfter(base) // whoever asks now must not be told what is about to go
		if err := p.remove(ctx, snapshotter, id); err != nil {
			return fmt.Errorf("delete snapshot %s: %w", id, err)
		}
	}
	if err := reverter.Revert(ctx, p.id, epoch, base); err != nil {
		return fmt.Errorf("roll back to %s: %w", base, err)
	}
	p.forgetAfter(base)
	p.cfg.Logger.Info("standby rolled back to the newest snapshot that it has in common with the active replica",
		"replica", p.id, "share", p.want.Share.ID, "snapshot", base)
	return &rolledBack{base, why}
}

// forgetAfter: what is told of the standby's progress is not there any more.
func (p *pass) forgetAfter(base cairn.SnapshotID) {
	p.note(func(s *SyncState) {
		if s.Newest != base {
			s.Newest, s.AsOf = "", time.Time{}
		}
	})
}

// clear removes a standby that has nothing in common with the active replica, so that it can be fetched anew. What only it
// has is a snapshot of a user's share by now, and keeps it from being removed.
func (p *pass) clear(ctx context.Context, object drivers.Object) error {
	for _, s := range p.want.Snapshots {
		if s.Diverged {
			return fmt.Errorf("has no snapshot in common with the active replica, and holds diverged snapshot %s; delete that one, then it is fetched anew: %w",
				s.Snapshot, cairn.ErrInUse)
		}
	}
	pool, epoch := p.cfg.Pools[p.want.Replica.Pool], p.want.Replica.Epoch
	snapshotter, ok := pool.(drivers.Snapshotter)
	if !ok {
		return fmt.Errorf("pool %s: cannot delete snapshots: %w", p.want.Replica.Pool, cairn.ErrNotSupported)
	}
	p.forgetAfter("")
	doomed := inOrder(object.Snapshots)
	for _, snap := range object.Snapshots {
		if !snap.Ready {
			doomed = append(doomed, snap.ID)
		}
	}
	for _, id := range slices.Backward(doomed) { // as in rollBack
		if err := p.remove(ctx, snapshotter, id); err != nil {
			return fmt.Errorf("delete snapshot %s: %w", id, err)
		}
	}
	if err := pool.Delete(ctx, p.id, epoch); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	p.cfg.Logger.Warn("standby had nothing in common with the active replica any more and is fetched anew", "replica", p.id, "share", p.want.Share.ID)
	return nil
}

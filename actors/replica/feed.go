package replica

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// feedsKept is how many of the oldest and of the newest sync points are kept for a standby that has not been heard of: one of
// the oldest is what it has.
const feedsKept = 8

// SendFunc writes the offered stream.
type SendFunc func(ctx context.Context, w io.Writer) error

// Offer answers a standby: what it lacks next, and how to send it; nothing to send is a nil SendFunc. A replica that is made
// from a snapshot here is offered that. It runs beside the actor, and changes nothing on the pool.
func (a *Actor) Offer(ctx context.Context, request PullRequest) (Offer, SendFunc, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.StepTimeout)
	defer cancel()
	view := a.cfg.Viewer.View()
	if row := view.Replica(request.Standby); Copied(view, row) {
		return a.offerCopy(ctx, view, row, request)
	}
	row, err := a.feeder(view, request)
	if err != nil {
		return Offer{}, nil, err
	}
	pool := a.cfg.Pools[row.Pool]
	sender, ok := pool.(drivers.Sender)
	if !ok {
		return Offer{}, nil, fmt.Errorf("pool %s: cannot send: %w", row.Pool, cairn.ErrNotSupported)
	}
	object, err := pool.Stat(ctx, row.ID)
	if err != nil {
		return Offer{}, nil, fmt.Errorf("active replica %s: %w", row.ID, err)
	}
	source := inOrder(object.Snapshots)
	offer, found, err := a.choose(ctx, view, source, request)
	if err != nil {
		return Offer{}, nil, err
	}
	a.acknowledge(row, request.Standby, offer.Base)
	offer.Keep = a.kept(view, row, source)
	if point, ok := ParseSyncPoint(offer.Newest); ok {
		offer.Age = max(0, a.cfg.Now().Sub(point.At))
		if offer.Behind, err = sender.Changed(ctx, row.ID, offer.Newest); err != nil {
			return Offer{}, nil, fmt.Errorf("active replica %s: %w", row.ID, err)
		}
	}
	if !found {
		offer.Snapshot, offer.Base = "", ""
		return offer, nil, nil
	}
	spec := drivers.SendSpec{Snapshot: offer.Snapshot, Base: offer.Base, Resume: offer.Resume}
	if offer.Size, err = sender.SendSize(ctx, row.ID, spec); err != nil {
		return Offer{}, nil, fmt.Errorf("active replica %s: %w", row.ID, err)
	}
	return offer, func(ctx context.Context, w io.Writer) error { return sender.Send(ctx, row.ID, spec, w) }, nil
}

// feeder finds the active replica, which must be here and of the epoch that the standby knows.
func (a *Actor) feeder(v *fsm.View, request PullRequest) (*cairn.Replica, error) {
	share, standby := v.Share(request.Share), v.Replica(request.Standby)
	switch {
	case share == nil || standby == nil || standby.Share != request.Share: // this node's view may be old
		return nil, fmt.Errorf("share %s, standby %s: no such pair: %w", request.Share, request.Standby, cairn.ErrStale)
	case standby.Role != cairn.RoleStandby || standby.Epoch != request.Epoch:
		return nil, fmt.Errorf("replica %s: is %s of epoch %d here, and the request of epoch %d: %w",
			standby.ID, standby.Role, standby.Epoch, request.Epoch, cairn.ErrStale)
	}
	row := v.Replica(share.Active)
	if row == nil || row.Node != a.cfg.Node || row.Epoch != request.Epoch {
		return nil, fmt.Errorf("share %s: its active replica is not here in epoch %d: %w", request.Share, request.Epoch, cairn.ErrStale)
	}
	return row, nil
}

// choose picks what the standby gets next. A snapshot of a user that it lacks may be one whose deletion it has heard of and this node has not:
// taken for lost, it would send the standby back to before that snapshot, and bring it back. So nothing is said of one by an old view.
func (a *Actor) choose(ctx context.Context, view *fsm.View, source []cairn.SnapshotID, request PullRequest) (Offer, bool, error) {
	offer, found := choose(source, request, wantedBy(view, request.Standby))
	if _, point := ParseSyncPoint(offer.Snapshot); !found || point {
		return offer, found, nil
	}
	view, err := a.cfg.Viewer.ReadView(ctx)
	if err != nil {
		return Offer{}, false, fmt.Errorf("snapshot %s: is it still wanted: %w", offer.Snapshot, err)
	}
	offer, found = choose(source, request, wantedBy(view, request.Standby))
	return offer, found, nil
}

// wantedBy lists the snapshots of users that are wanted on a replica.
func wantedBy(v *fsm.View, id cairn.ReplicaID) map[cairn.SnapshotID]bool {
	wanted := make(map[cairn.SnapshotID]bool)
	for i := range v.InstancesOn(id) {
		if i.Want == cairn.Present {
			wanted[i.Snapshot] = true
		}
	}
	return wanted
}

// inOrder lists the snapshots that are ready, oldest first.
func inOrder(snapshots []drivers.SnapshotObject) []cairn.SnapshotID {
	ready := slices.DeleteFunc(slices.Clone(snapshots), func(s drivers.SnapshotObject) bool { return !s.Ready })
	slices.SortFunc(ready, func(a, b drivers.SnapshotObject) int {
		if a.Order != b.Order {
			return int(min(max(int64(a.Order)-int64(b.Order), -1), 1))
		}
		return compareID(a.ID, b.ID)
	})
	ids := make([]cairn.SnapshotID, len(ready))
	for i, s := range ready {
		ids[i] = s.ID
	}
	return ids
}

func compareID(a, b cairn.SnapshotID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// newestSyncPoint returns the newest sync point among the snapshots, or "".
func newestSyncPoint(ids []cairn.SnapshotID) (newest cairn.SnapshotID) {
	if points := syncPoints(ids); len(points) > 0 {
		newest = points[len(points)-1]
	}
	return newest
}

// syncPoints lists the sync points among the snapshots, oldest first.
func syncPoints(ids []cairn.SnapshotID) []cairn.SnapshotID {
	points := slices.DeleteFunc(slices.Clone(ids), func(id cairn.SnapshotID) bool {
		_, ok := ParseSyncPoint(id)
		return !ok
	})
	slices.Sort(points) // identifiers sort by age
	return points
}

// choose picks what the standby gets next: the first snapshot after the newest common one that it wants, or the newest sync
// point. With nothing in common it begins with the oldest sync point that there is: another replica may have no newer one, and
// finds a common base with this one then. Base is the newest common snapshot also if there is nothing to send. If one is missing that is older than the base,
// the standby has lost it: it has to go back to before that one, and gets everything from there on again. Pure.
func choose(source []cairn.SnapshotID, request PullRequest, wanted map[cairn.SnapshotID]bool) (offer Offer, found bool) {
	offer.Newest = newestSyncPoint(source)
	base, lost := -1, -1
	for i, id := range source {
		switch {
		case slices.Contains(request.Have, id) && lost < 0:
			base, offer.Base = i, id
		case slices.Contains(request.Have, id):
			offer.Snapshot = source[lost]
			return offer, true
		case wanted[id] && lost < 0:
			lost = i
		}
	}
	for _, id := range source[base+1:] {
		if _, old := ParseSyncPoint(id); id != offer.Newest && !wanted[id] && !(base < 0 && old) {
			continue
		}
		offer.Snapshot = id
		if id == request.Resuming {
			offer.Resume = request.Resume
		}
		return offer, true
	}
	return offer, false
}

// feed is what standbys are known to have of an active replica, in one epoch: what one had when this replica was active
// before says nothing.
type feed struct {
	epoch uint64
	bases map[cairn.ReplicaID]cairn.SnapshotID // the newest snapshot in common
}

// acknowledge remembers the newest snapshot that a standby has in common with the active replica.
func (a *Actor) acknowledge(active *cairn.Replica, standby cairn.ReplicaID, base cairn.SnapshotID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.feeds[active.ID].epoch != active.Epoch {
		a.feeds[active.ID] = feed{active.Epoch, make(map[cairn.ReplicaID]cairn.SnapshotID)}
	}
	a.feeds[active.ID].bases[standby] = base
}

// kept lists the sync points of an active replica that somebody may need: the newest one, and for every standby the one
// that it has. Those of a standby that nobody has heard of in this epoch, since this process started, cannot be known.
func (a *Actor) kept(v *fsm.View, row *cairn.Replica, source []cairn.SnapshotID) []cairn.SnapshotID {
	points := syncPoints(source)
	needed := map[cairn.SnapshotID]bool{newestSyncPoint(points): true}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, id := range points {
		needed[id] = needed[id] || a.holds[held{row.ID, id}] > 0
	}
	known := a.feeds[row.ID]
	for standby := range v.ReplicasOf(row.Share) {
		if standby.ID == row.ID {
			continue
		}
		base, heard := known.bases[standby.ID]
		heard = heard && known.epoch == row.Epoch
		needed[base] = needed[base] || heard
		for i, id := range points {
			if !heard && (i < feedsKept || i >= len(points)-feedsKept) {
				needed[id] = true
			}
		}
	}
	return slices.DeleteFunc(points, func(id cairn.SnapshotID) bool { return !needed[id] })
}

// SyncStates says how far the standbys of this node are; nil asks for all.
func (a *Actor) SyncStates(ids []cairn.ReplicaID) []SyncState {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ids == nil {
		ids = slices.Collect(maps.Keys(a.syncs))
	}
	var states []SyncState
	for _, id := range ids {
		if state, ok := a.syncs[id]; ok {
			states = append(states, state)
		}
	}
	slices.SortFunc(states, func(x, y SyncState) int { return compareID(cairn.SnapshotID(x.Replica), cairn.SnapshotID(y.Replica)) })
	return states
}

// interval is how often an active replica of the share type cuts a sync point while it is written to.
func interval(specs map[string]string) time.Duration {
	if d, err := time.ParseDuration(specs[IntervalSpec]); err == nil && d >= minInterval {
		return d
	}
	return defaultInterval
}

// IntervalSpec is the extra spec that says how often standbys are brought up to date, such as "10s".
const IntervalSpec = "cairn:replication_interval"

const (
	defaultInterval = 10 * time.Second
	minInterval     = 100 * time.Millisecond
)

package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/actors"
	"github.com/cairn-storage/cairn/drivers"
	"github.com/cairn-storage/cairn/fsm"
)

// pulling is a transfer under way, and what it is good for.
type pulling struct {
	row     *cairn.Replica
	cancel  context.CancelCauseFunc
	showing *showing
}

// errChanged ends a transfer whose replica is no longer what it was begun for.
var errChanged = errors.New("the replica's role or presence changed")

// Interrupt ends a transfer that the view says is for nothing any more. The pass that runs it then looks again. Of one that goes on
// the exports are looked at. Who wakes the actor calls it first: a transfer may take hours.
func (a *Actor) Interrupt(v *fsm.View, id cairn.ReplicaID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	running, ok := a.pulls[id]
	if !ok {
		return
	}
	row := v.Replica(id)
	if row == nil || row.Epoch != running.row.Epoch || row.Role != running.row.Role || row.Want.Presence != running.row.Want.Presence {
		running.cancel(errChanged)
		return
	}
	running.showing.nudge()
}

// interruptible registers a transfer for Interrupt, until end is called.
func (p *pass) interruptible(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &showing{changed: make(chan struct{}, 1)}
	stop := p.keepShown(ctx, s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulls[p.id] = pulling{p.want.Replica, cancel, s}
	return ctx, func() {
		cancel(nil)
		stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pulls, p.id)
	}
}

// pull brings a standby up to date. By what the pass knows of access rules nothing may be exported after a transfer that they were
// changed during.
func (p *pass) pull(ctx context.Context) error {
	err := p.pullAll(ctx)
	return cmp.Or(p.outdated(p.cfg.Viewer.View()), err)
}

// pullAll fetches one snapshot after another until the standby lacks none, and shows each. What it fetched stays, whatever ends
// it. That the active replica's node cannot be asked is no fault of this replica.
func (p *pass) pullAll(ctx context.Context) error {
	ctx, end := p.interruptible(ctx)
	defer end()
	var last *rolledBack
	for {
		again, err := p.pullOne(ctx)
		back, _ := errors.AsType[*rolledBack](err)
		switch {
		case context.Cause(ctx) == errChanged:
			return fmt.Errorf("%w: %w", errChanged, cairn.ErrStale)
		case back != nil && (last == nil || last.base != back.base):
			last = back
		case err != nil:
			p.note(func(s *SyncState) { s.Received, s.Total, s.Error = 0, 0, err.Error() })
			return err
		case !again:
			return nil
		default:
			last = nil
			p.show(ctx)
		}
	}
}

// pullOne asks once and receives what is offered; again is false if nothing was.
func (p *pass) pullOne(ctx context.Context) (again bool, err error) {
	row := p.want.Replica
	pool := p.cfg.Pools[row.Pool]
	receiver, ok := pool.(drivers.Receiver)
	if p.want.ActiveDown { // the leader may have asked how far this standby is: it must get no further now
		return false, fmt.Errorf("%w: node %s is down", errSource, p.want.ActiveNode)
	}
	if !ok || p.cfg.Puller == nil {
		return false, fmt.Errorf("pool %s: cannot receive: %w", row.Pool, cairn.ErrNotSupported)
	}
	request := PullRequest{Share: row.Share, Standby: p.id, Epoch: row.Epoch}
	object, err := pool.Stat(ctx, p.id)
	switch {
	case err == nil && object.Ready:
		request.Have = inOrder(object.Snapshots)
	case err != nil && !errors.Is(err, cairn.ErrNotFound):
		return false, poolError("stat", err)
	}
	if request.Resume, request.Resuming, err = receiver.Partial(ctx, p.id); err != nil && !errors.Is(err, cairn.ErrNotFound) {
		return false, fmt.Errorf("receive: look for a rest: %w", err)
	}
	asked := p.cfg.Now()
	var own error // what went wrong on this side
	offer, err := p.cfg.Puller.Pull(ctx, p.want.ActiveNode, request, func(offer Offer, r io.Reader) error {
		stream := &watched{Reader: r}
		own = p.receive(ctx, receiver, object, offer, stream)
		if own != nil && stream.err != nil { // the stream broke: that the tool complains then says nothing
			own = nil
			return stream.err
		}
		return own
	})
	switch {
	case errors.Is(own, errRewind):
		return true, p.rewind(ctx, object, offer)
	case own != nil:
		return false, own
	case err != nil:
		return false, fmt.Errorf("%w from node %s: %w", errSource, p.want.ActiveNode, err)
	case offer.Snapshot == "":
		p.follow(offer, newestSyncPoint(request.Have), asked)
		return false, p.prune(ctx, object, offer.Keep)
	}
	return true, nil
}

// errSource: the active replica's side could not be asked, or did not send all of it. Nothing is wrong with the standby: it
// stays as far behind as it was, and no further.
var errSource = errors.New("nothing received")

// watched remembers why a stream broke off.
type watched struct {
	io.Reader
	err error
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Reader.Read(b)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// receive makes the replica what the offer says.
func (p *pass) receive(ctx context.Context, receiver drivers.Receiver, object drivers.Object, offer Offer, r io.Reader) error {
	actors.Doing(ctx, fmt.Sprintf("receive %s", offer.Snapshot))
	if object.Ready && p.rewinds(object, offer) {
		return errRewind
	}
	if offer.Resume == "" {
		if err := receiver.Abandon(ctx, p.id, p.want.Replica.Epoch); err != nil && !errors.Is(err, cairn.ErrNotFound) {
			return err
		}
	}
	p.note(func(s *SyncState) { s.Received, s.Total, s.Error = 0, offer.Size, "" })
	spec := drivers.ReceiveSpec{CreateSpec: p.createSpec(), Snapshot: offer.Snapshot, Base: offer.Base}
	// failpoint: receiving
	err := receiver.Receive(ctx, spec, io.TeeReader(r, progress{p}))
	// failpoint: received
	if errors.Is(err, cairn.ErrPrecondition) && offer.Base != "" {
		return p.rollBack(ctx, object, offer.Base, err)
	}
	return err
}

// rolledBack ends a stream that could not be used, because the standby was not at its base. It is there now, so the next stream
// fits; one that does not either is a fault.
type rolledBack struct {
	base cairn.SnapshotID
	why  error
}

func (r *rolledBack) Error() string {
	return fmt.Sprintf("was rolled back to %s, and what follows that does not fit: %v", r.base, r.why)
}

func (r *rolledBack) Unwrap() error { return r.why }

// follow notes that the standby lacks nothing that was offered to a question asked at that time.
func (p *pass) follow(offer Offer, newest cairn.SnapshotID, asked time.Time) {
	p.inSync = newest != "" && newest == offer.Newest
	asOf := asked.Add(-offer.Age)
	if offer.Behind == 0 {
		asOf = asked
	}
	p.note(func(s *SyncState) {
		s.Newest, s.Behind, s.Received, s.Total, s.Error = newest, offer.Behind, 0, 0, ""
		if p.inSync {
			s.AsOf = asOf
		}
	})
}

// tell keeps what is told of progress true to what is there. How far an active replica once followed another one is over: it
// has cut sync points of its own since, and pruned that one. A standby that has not asked anybody yet, because it was active
// until now, its process is new, or it was rolled back, is as far as its newest sync point; it may have to take over before it can ask.
func (p *pass) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.want.Replica.Role != cairn.RoleStandby {
		delete(p.syncs, p.id)
		return
	}
	if state := p.syncs[p.id]; state.Newest == "" && p.looked == nil && p.have.Object != nil && p.have.Object.Ready {
		state.Replica, state.Newest = p.id, newestSyncPoint(inOrder(p.have.Object.Snapshots))
		p.syncs[p.id] = state
	}
}

// prune removes the sync points that no replica needs to find a common base with this one, and that nobody reads.
func (p *pass) prune(ctx context.Context, object drivers.Object, keep []cairn.SnapshotID) error {
	snapshotter, ok := p.cfg.Pools[p.want.Replica.Pool].(drivers.Snapshotter)
	if !ok {
		return nil
	}
	newest := newestSyncPoint(inOrder(object.Snapshots))
	served, err := p.exports(ctx)
	if err != nil {
		return err
	}
	for _, s := range object.Snapshots {
		read := slices.ContainsFunc(served, func(spec drivers.ExportSpec) bool { return spec.ID.Snapshot == s.ID })
		if _, ok := ParseSyncPoint(s.ID); !ok || s.ID == newest || read || slices.Contains(keep, s.ID) || p.isHeld(p.id, s.ID) {
			continue
		}
		if err := snapshotter.DeleteSnapshot(ctx, p.id, p.want.Replica.Epoch, s.ID); err != nil && !errors.Is(err, cairn.ErrInUse) {
			return fmt.Errorf("delete sync point %s: %w", s.ID, err)
		}
	}
	return nil
}

// noteSync changes what is told of a standby's progress.
func (a *Actor) noteSync(id cairn.ReplicaID, change func(*SyncState)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	state := a.syncs[id]
	state.Replica = id
	change(&state)
	a.syncs[id] = state
}

func (p *pass) note(change func(*SyncState)) { p.noteSync(p.id, change) }

// progress counts what was received.
type progress struct{ p *pass }

func (w progress) Write(b []byte) (int, error) {
	w.p.note(func(s *SyncState) { s.Received += int64(len(b)) })
	return len(b), nil
}

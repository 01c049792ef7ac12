package replication

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
	peerv1 "github.com/cairn-storage/cairn/rpc/pb/cairn/peer/v1"
)

const (
	// gatherDelay is how long changes of the state are gathered before the rows of this node are gone through.
	gatherDelay = time.Second
	// greetDelay is how long a node may take to say that it will tell.
	greetDelay = 10 * time.Second
	// After a watch that ended soon the next one begins after minBackoff, and every time later, up to maxBackoff.
	minBackoff, maxBackoff = 100 * time.Millisecond, 10 * time.Second
)

// State is the replicated state of this node, and its changes.
type State interface {
	Viewer
	// Subscribe has notify called on every change, with nil if everything may have changed. It must not block.
	Subscribe(notify func([]fsm.Change)) (cancel func())
}

// Watcher listens to the nodes of the active replicas of this node's standbys, one call to each, and wakes the standbys that
// they name; all of them when a call begins, since hints are kept for nobody. A node that cannot be reached is tried again.
type Watcher struct {
	Self  cairn.NodeID
	State State
	Conn  Dial
	// Wake lets a standby look. It must not block.
	Wake func(cairn.ReplicaID)
}

// Run watches until the context ends. It has a goroutine for every node that it listens to.
func (w *Watcher) Run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	defer w.State.Subscribe(func(changes []fsm.Change) {
		if !concerns(changes) {
			return
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	var watches sync.WaitGroup
	defer watches.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for running := map[cairn.NodeID]context.CancelFunc{}; ; {
		wanted := w.standbys(w.State.View())
		for node, stop := range running {
			if wanted[node] == nil {
				stop()
				delete(running, node)
			}
		}
		for node := range wanted {
			if running[node] == nil {
				watching, stop := context.WithCancel(ctx)
				running[node] = stop
				watches.Go(func() { w.watch(watching, node) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if !pause(ctx, gatherDelay) {
			return
		}
	}
}

// concerns: a share has another active replica only if its replicas have changed.
func concerns(changes []fsm.Change) bool {
	for _, change := range changes {
		if change.Table == fsm.TableReplicas {
			return true
		}
	}
	return changes == nil
}

// standbys lists the standbys of this node by the node of their active replica.
func (w *Watcher) standbys(view *fsm.View) map[cairn.NodeID][]cairn.ReplicaID {
	found := make(map[cairn.NodeID][]cairn.ReplicaID)
	for row := range view.ReplicasOn(w.Self) {
		share := view.Share(row.Share)
		if row.Role != cairn.RoleStandby || share == nil {
			continue
		}
		if active := view.Replica(share.Active); active != nil && active.Node != w.Self {
			found[active.Node] = append(found[active.Node], row.ID)
		}
	}
	return found
}

// watch listens to one node, again and again.
func (w *Watcher) watch(ctx context.Context, node cairn.NodeID) {
	for delay := minBackoff; ; delay = min(2*delay, maxBackoff) {
		began := time.Now()
		_ = w.listen(ctx, node) // why it ended changes nothing, and standbys that cannot pull say so themselves
		if time.Since(began) > maxBackoff {
			delay = minBackoff
		}
		if !pause(ctx, delay/2+rand.N(delay)) {
			return
		}
	}
}

func (w *Watcher) listen(ctx context.Context, node cairn.NodeID) error {
	conn, err := w.Conn(ctx, node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	impatient := time.AfterFunc(greetDelay, cancel)
	defer impatient.Stop()
	stream, err := peerv1.NewReplicationServiceClient(conn).Watch(ctx, &peerv1.WatchRequest{})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	impatient.Stop()
	for _, id := range w.standbys(w.State.View())[node] {
		w.Wake(id)
	}
	for {
		hint, err := stream.Recv()
		if err != nil {
			return err
		}
		view := w.State.View()
		for _, id := range typed[cairn.ReplicaID](hint.GetStandbys()) {
			if row := view.Replica(id); row != nil && row.Node == w.Self {
				w.Wake(id)
			}
		}
	}
}

// pause reports whether the time is over and the context is not.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
